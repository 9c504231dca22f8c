package meter

import "slices"

// MemorySize is the number of TIDs that a meter remembers.
const MemorySize = 50

// memory is the TID store, ascending.
type memory []uint32

// filled returns a memory that holds tid in every place.
func filled(tid uint32) memory {
	m := make(memory, MemorySize)
	for i := range m {
		m[i] = tid
	}
	return m
}

func (m memory) used(tid uint32) bool {
	_, found := slices.BinarySearch(m, tid)
	return found
}

func (m memory) old(tid uint32) bool { return tid < m[0] }

// with returns the memory after tid displaced the smallest entry.
func (m memory) with(tid uint32) memory {
	next := slices.Clone(m[1:])
	at, _ := slices.BinarySearch(next, tid)
	return slices.Insert(next, at, tid)
}
