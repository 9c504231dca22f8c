package tsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

// stored is a register's record: JSON after its 16-bit length, then the key.
type stored struct {
	Slot int                   `json:"slot"`
	KMC  string                `json:"kmc"`
	Attr keyload.KeyAttributes `json:"attr"`
}

// contentID names a register's record by its content, so that a cached key can
// never be one that was replaced, or one that was written but not committed.
type contentID [16]byte

// limits is the small record beside a register: what vending reads and debits.
type limits struct {
	id       contentID
	slot     int
	ulm, clm uint32
}

const limitsSize = 25

func getLimits(tx Tx, register int) (limits, bool, error) {
	raw, err := tx.Get(limitKey(register))
	if err != nil || raw == nil {
		return limits{}, false, err
	}
	l, err := parseLimits(raw)
	return l, err == nil, err
}

func parseLimits(raw []byte) (limits, error) {
	if len(raw) != limitsSize {
		return limits{}, fmt.Errorf("protected memory: limits of %d octets", len(raw))
	}
	l := limits{slot: int(raw[16]), ulm: binary.BigEndian.Uint32(raw[17:]), clm: binary.BigEndian.Uint32(raw[21:])}
	copy(l.id[:], raw)
	return l, nil
}

func putLimits(tx Tx, register int, l limits) error {
	raw := append(make([]byte, 0, limitsSize), l.id[:]...)
	raw = append(raw, byte(l.slot))
	raw = binary.BigEndian.AppendUint32(raw, l.ulm)
	return tx.Put(limitKey(register), binary.BigEndian.AppendUint32(raw, l.clm))
}

// putRegister writes a key into a register that holds none.
func putRegister(tx Tx, register int, s stored, vk []byte) error {
	meta, err := json.Marshal(s)
	if err != nil {
		return err
	}
	raw := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(meta)+len(vk)), uint16(len(meta)))
	raw = append(append(raw, meta...), vk...)
	defer clear(raw)
	if err := tx.Put(registerKey(register), raw); err != nil {
		return err
	}
	digest := sha256.Sum256(raw)
	l := limits{slot: s.Slot, ulm: s.Attr.ULM, clm: s.Attr.CLM}
	copy(l.id[:], digest[:])
	if err := putLimits(tx, register, l); err != nil {
		return err
	}
	if err := tx.Put(indexKey(s.Attr.SGC, s.Attr.KRN, s.Attr.BDT, register), []byte{1}); err != nil {
		return err
	}
	return markUsed(tx, register, true)
}

// readRegister reads a register's record; the key is a copy.
func readRegister(tx Tx, register int) (s stored, vk []byte, found bool, err error) {
	raw, err := tx.Get(registerKey(register))
	if err != nil || raw == nil {
		return stored{}, nil, false, err
	}
	if len(raw) < 2 || len(raw) < 2+int(binary.BigEndian.Uint16(raw)) {
		return stored{}, nil, false, fmt.Errorf("protected memory: register %d is cut short", register)
	}
	end := 2 + int(binary.BigEndian.Uint16(raw))
	if err := json.Unmarshal(raw[2:end], &s); err != nil {
		return stored{}, nil, false, fmt.Errorf("protected memory, register %d: %w", register, err)
	}
	return s, append([]byte(nil), raw[end:]...), true, nil
}

// eraseRegister deletes a register and everything about it.
func eraseRegister(tx Tx, register int) error {
	s, vk, found, err := readRegister(tx, register)
	if err != nil || !found {
		return err
	}
	clear(vk)
	for _, key := range [][]byte{registerKey(register), limitKey(register),
		indexKey(s.Attr.SGC, s.Attr.KRN, s.Attr.BDT, register)} {
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
	return markUsed(tx, register, false)
}

// registersOfSlot returns the registers whose keys came through a slot.
func registersOfSlot(tx Tx, slot int) ([]int, error) {
	var out []int
	err := eachLimit(tx, func(register int, l limits) {
		if l.slot == slot {
			out = append(out, register)
		}
	})
	return out, err
}

func eachLimit(tx Tx, fn func(register int, l limits)) error {
	return tx.Range([]byte(prefixLimit), func(key, value []byte) error {
		l, err := parseLimits(value)
		if err == nil {
			fn(registerOfIndex(key), l)
		}
		return err
	})
}

// eraseSlotKeys erases the keys of a slot and returns how many there were.
func eraseSlotKeys(tx Tx, slot int) (int, error) {
	registers, err := registersOfSlot(tx, slot)
	if err != nil {
		return 0, err
	}
	for _, r := range registers {
		if err := eraseRegister(tx, r); err != nil {
			return 0, err
		}
	}
	return len(registers), nil
}

// search finds registers in the index. It is used again, for every vend makes one.
type search struct {
	prefix    []byte
	hits      []hit
	registers []int
	note      func(key, value []byte) error // adds to hits
}

type hit struct {
	order    [4]byte // digits of the base date
	register int
}

func newSearch() *search {
	s := new(search)
	s.note = func(key, _ []byte) error {
		s.hits = append(s.hits, hit{[4]byte(key[len(key)-8 : len(key)-4]), registerOfIndex(key)})
		return nil
	}
	return s
}

func (m *Module) search() *search {
	if s, ok := m.searches.Get().(*search); ok {
		return s
	}
	return newSearch()
}

// find returns the registers of a supply group and revision, newest base date
// first, then by register. They are valid until the next search.
func (s *search) find(tx Tx, sgc, krn int) ([]int, error) {
	s.hits, s.registers = s.hits[:0], s.registers[:0]
	s.prefix = indexPrefix(s.prefix[:0], sgc, krn)
	err := tx.Range(s.prefix, s.note)
	slices.SortStableFunc(s.hits, func(a, b hit) int { return bytes.Compare(b.order[:], a.order[:]) })
	for _, h := range s.hits {
		s.registers = append(s.registers, h.register)
	}
	return s.registers, err
}

// markUsed keeps the bitmap of used registers.
func markUsed(tx Tx, register int, used bool) error {
	raw, err := tx.Get([]byte(keyUsed))
	if err != nil {
		return err
	}
	bits := make([]byte, max(len(raw), register/8+1))
	copy(bits, raw)
	bits[register/8] &^= 1 << (register % 8)
	if used {
		bits[register/8] |= 1 << (register % 8)
	}
	return tx.Put([]byte(keyUsed), bits)
}

// freeRegister returns the lowest register that holds no key, 0 if all do.
func (m *Module) freeRegister(tx Tx) (int, error) {
	bits, err := tx.Get([]byte(keyUsed))
	if err != nil {
		return 0, err
	}
	for n := 1; n <= m.cfg.Registers; n++ {
		if n/8 >= len(bits) || bits[n/8]&(1<<(n%8)) == 0 {
			return n, nil
		}
	}
	return 0, nil
}
