package store

import "slices"

// batch is what the functions of one commit have written: it is in the index
// already, with what undoes it kept aside. Of two batches, one is open for functions
// while the other is in flight to the disk; they share the index.
type batch struct {
	index  *index
	owners *owners
	cold   []Keys
	seq    uint64 // of the commit

	calls   []*call  // who waits for it
	changes []change // one for each key that was written
	own     []change // of the function that runs, one for each write
	arena   arena    // what was written, until the commit is done
	records records  // in flight
}

// records are those of a commit that are not on the disk yet.
type records struct {
	off int64 // in the log
	p   []byte
}

// bucket returns a bucket of the index, making it.
func (b *batch) bucket(name string) *bucket {
	in := b.index.buckets[name]
	if in == nil {
		in = &bucket{name: name, owner: b.owners.next()}
		for _, c := range b.cold {
			if c.Bucket == name {
				in.cold = append(in.cold, c.Prefix)
			}
		}
		b.index.buckets[name] = in
	}
	return in
}

func (b *batch) put(in *bucket, key, value []byte) {
	it := newItem(b.arena.take(len(key)+len(value)), key, value, b.seq)
	old, had := b.index.set(in, it)
	b.own = append(b.own, change{in, it.key(), old, had})
}

func (b *batch) delete(in *bucket, key []byte) {
	if old, had := b.index.remove(in, key); had {
		b.own = append(b.own, change{in, old.key(), old, true})
	}
}

// keep takes the function's writes into the commit. A key that an earlier
// function wrote is in it already.
func (b *batch) keep() {
	for _, c := range b.own {
		if !c.had || c.old.cold || c.old.at != b.seq {
			b.changes = append(b.changes, c)
		}
	}
	b.own = emptied(b.own)
}

// drop takes the function's writes back.
func (b *batch) drop() {
	b.index.undo(b.own)
	b.own = emptied(b.own)
}

// dropAll takes the whole commit back.
func (b *batch) dropAll() {
	b.index.undo(b.changes)
	b.done()
}

// fail tells those whose functions succeeded that the commit did not.
func (b *batch) fail(err error) {
	for _, c := range b.calls {
		if c.err == nil {
			c.err = err
		}
	}
}

// done is called once the commit is durable, or was taken back.
func (b *batch) done() {
	b.changes = emptied(b.changes)
	b.arena.wipe()
}

// emptied keeps the array for the next commit, unless this one was unusual, and
// none of what it referred to.
func emptied[T any](s []T) []T {
	if cap(s) > 8*maxBatch {
		return nil
	}
	clear(s)
	return s[:0]
}

// encode makes the commit's records. Cold values leave the memory.
func (b *batch) encode(w *writer) {
	for i := range b.changes {
		c := &b.changes[i]
		li, ii, found := c.bucket.find(c.key)
		if !found {
			w.delete(c.bucket, c.key)
			continue
		}
		it := &c.bucket.leaves[li].items[ii]
		if it.cold { // written twice in this commit, and done
			continue
		}
		at := w.put(c.bucket, it.key(), it.value())
		it = &c.bucket.own(li).items[ii]
		if c.bucket.staysInLog(it.key(), int(it.size)) {
			it.data, it.at, it.cold = append(make([]byte, 0, it.klen), it.key()...), at, true
		} else { // out of the arena
			it.data = append(make([]byte, 0, len(it.data)), it.data...)
		}
	}
	w.seal(true)
}

// arena gives out memory that is taken back all at once.
type arena struct {
	blocks [][]byte
	used   int // blocks in use; the last of them has room
}

const (
	arenaBlock = 16 << 10
	arenaKept  = 16 // blocks
)

// take returns an empty slice with room for n bytes.
func (a *arena) take(n int) []byte {
	if a.used > 0 {
		last := &a.blocks[a.used-1]
		if at := len(*last); at+n <= cap(*last) {
			*last = (*last)[:at+n]
			return (*last)[at : at : at+n]
		}
	}
	if n > arenaBlock/4 {
		return make([]byte, 0, n)
	}
	if a.used == len(a.blocks) {
		a.blocks = append(a.blocks, make([]byte, 0, arenaBlock))
	}
	a.used++
	a.blocks[a.used-1] = a.blocks[a.used-1][:n]
	return a.blocks[a.used-1][:0:n]
}

// wipe takes everything back and overwrites it.
func (a *arena) wipe() {
	for i := range a.used {
		clear(a.blocks[i])
		a.blocks[i] = a.blocks[i][:0]
	}
	a.used = 0
	if len(a.blocks) > arenaKept {
		a.blocks = slices.Clone(a.blocks[:arenaKept])
	}
}
