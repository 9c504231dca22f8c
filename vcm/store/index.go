package store

import (
	"bytes"
	"slices"
	"sync/atomic"
)

// item is one key with its value, or with the place of its value in the log.
type item struct {
	data []byte // the key, followed by the value if it is in memory
	at   uint64 // cold: place of the value; otherwise the commit that wrote it, 0 if read from the log
	size uint32 // of the value
	klen uint16
	cold bool
}

func (it *item) key() []byte   { return it.data[:it.klen:it.klen] }
func (it *item) value() []byte { return it.data[it.klen:len(it.data):len(it.data)] }

// cost is the space that the item takes in a log without garbage, at most.
func (it *item) cost() int64 { return int64(it.klen) + int64(it.size) + opCost }

// newItem makes an item in data, which has room for both.
func newItem(data, key, value []byte, at uint64) item {
	data = append(append(data, key...), value...)
	return item{data: data, at: at, size: uint32(len(value)), klen: uint16(len(key))}
}

// same reports whether other is the same write of the same key.
func (it *item) same(other *item) bool {
	return it.at == other.at && it.cold == other.cold && &it.data[0] == &other.data[0]
}

// leafMax is how many items a leaf holds.
const leafMax = 64

// bucket is one bucket's index: sorted leaves of sorted items. A leaf of
// another owner is copied before it is changed, so that a copy of a bucket
// costs no more than its list of leaves.
type bucket struct {
	name   string
	cold   []string // prefixes of keys whose values stay in the log
	owner  uint64
	leaves []*leaf
}

type leaf struct {
	owner uint64
	items []item
}

// coldSize is the smallest value that stays in the log.
const coldSize = 64

func (b *bucket) staysInLog(key []byte, size int) bool {
	if size < coldSize {
		return false
	}
	for _, p := range b.cold {
		if len(key) >= len(p) && string(key[:len(p)]) == p {
			return true
		}
	}
	return false
}

// owners numbers the owners of leaves.
type owners struct{ n atomic.Uint64 }

func (o *owners) next() uint64 { return o.n.Add(1) }

// copy returns the bucket as it is now; both go on independently.
func (b *bucket) copy(o *owners) *bucket {
	c := &bucket{name: b.name, cold: b.cold, owner: o.next(), leaves: slices.Clone(b.leaves)}
	b.owner = o.next()
	return c
}

// find returns where key is, or where it belongs.
func (b *bucket) find(key []byte) (li, ii int, found bool) {
	lo, hi := 0, len(b.leaves)
	if last := hi - 1; last >= 0 && bytes.Compare(b.leaves[last].items[0].key(), key) <= 0 {
		// Where keys are appended it is mostly here, or behind everything.
		lo = hi
		items := b.leaves[last].items
		if bytes.Compare(items[len(items)-1].key(), key) < 0 {
			return last, len(items), false
		}
	}
	for lo < hi { // the first leaf that begins after key
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(b.leaves[mid].items[0].key(), key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0, 0, false
	}
	li = lo - 1
	items := b.leaves[li].items
	lo, hi = 0, len(items)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := bytes.Compare(items[mid].key(), key); {
		case c == 0:
			return li, mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return li, lo, false
}

// get returns the item of key, nil if there is none. It is valid until the
// bucket changes.
func (b *bucket) get(key []byte) *item {
	li, ii, found := b.find(key)
	if !found {
		return nil
	}
	return &b.leaves[li].items[ii]
}

// own returns a leaf that may be changed.
func (b *bucket) own(li int) *leaf {
	l := b.leaves[li]
	if l.owner != b.owner {
		l = &leaf{owner: b.owner, items: slices.Clone(l.items)}
		b.leaves[li] = l
	}
	return l
}

// set puts it in and returns what was there.
func (b *bucket) set(it item) (old item, had bool) {
	if len(b.leaves) == 0 {
		b.leaves = []*leaf{{owner: b.owner, items: []item{it}}}
		return item{}, false
	}
	li, ii, found := b.find(it.key())
	l := b.own(li)
	if found {
		old, l.items[ii] = l.items[ii], it
		return old, true
	}
	if len(l.items) == leafMax {
		// Most keys are appended in order: those leave full leaves behind.
		at := leafMax / 2
		if ii == leafMax {
			at = leafMax
		}
		right := &leaf{owner: b.owner, items: append(make([]item, 0, leafMax), l.items[at:]...)}
		clear(l.items[at:])
		l.items = l.items[:at]
		b.leaves = slices.Insert(b.leaves, li+1, right)
		if ii >= at {
			l, ii = right, ii-at
		}
	}
	l.items = slices.Insert(l.items, ii, it)
	return item{}, false
}

// remove takes key out and returns what was there.
func (b *bucket) remove(key []byte) (old item, had bool) {
	li, ii, found := b.find(key)
	if !found {
		return item{}, false
	}
	l := b.own(li)
	old = l.items[ii]
	l.items = slices.Delete(l.items, ii, ii+1)
	if len(l.items) == 0 {
		b.leaves = slices.Delete(b.leaves, li, li+1)
	}
	return old, true
}

// scan calls fn for the items from key from on, in order, until it returns
// false. The bucket must not change meanwhile.
func (b *bucket) scan(from []byte, fn func(*item) bool) {
	li, ii, _ := b.find(from)
	for ; li < len(b.leaves); li, ii = li+1, 0 {
		items := b.leaves[li].items
		for ; ii < len(items); ii++ {
			if !fn(&items[ii]) {
				return
			}
		}
	}
}

// index is every bucket by name.
type index struct {
	buckets map[string]*bucket
	live    int64 // cost of all items
}

func newIndex() *index { return &index{buckets: map[string]*bucket{}} }

// set and remove keep account of the space.
func (x *index) set(b *bucket, it item) (old item, had bool) {
	x.live += it.cost()
	if old, had = b.set(it); had {
		x.live -= old.cost()
	}
	return old, had
}

func (x *index) remove(b *bucket, key []byte) (old item, had bool) {
	if old, had = b.remove(key); had {
		x.live -= old.cost()
	}
	return old, had
}

// change is what undoes one write.
type change struct {
	bucket *bucket
	key    []byte // of what was written
	old    item   // if had
	had    bool
}

// undo takes changes back, the last one first.
func (x *index) undo(changes []change) {
	for _, c := range slices.Backward(changes) {
		if c.had {
			x.set(c.bucket, c.old)
		} else {
			x.remove(c.bucket, c.key)
		}
	}
}

// snapshot is the index as it was before all changes, the newest of which come
// first, for a reader.
func (x *index) snapshot(o *owners, all ...[]change) map[string]*bucket {
	out := make(map[string]*bucket, len(x.buckets))
	for name, b := range x.buckets {
		out[name] = b.copy(o)
	}
	for _, changes := range all {
		for _, c := range slices.Backward(changes) {
			b := out[c.bucket.name]
			if c.had {
				b.set(c.old)
			} else {
				b.remove(c.key)
			}
		}
	}
	return out
}
