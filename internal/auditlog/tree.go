package auditlog

import (
	"crypto/sha256"
	"math/bits"
	"slices"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const hashSize = sha256.Size

type hash = [hashSize]byte

// leafPrefix comes before a leaf when it is hashed.
const leafPrefix = "\x00"

// leafHash and nodeHash are RFC 6962, section 2.1.
func leafHash(line []byte) hash {
	return sha256.Sum256(append(append(make([]byte, 0, len(leafPrefix)+len(line)), leafPrefix...), line...))
}

func nodeHash(left, right hash) hash {
	var p [1 + 2*hashSize]byte
	p[0] = 1
	copy(p[1:], left[:])
	copy(p[1+hashSize:], right[:])
	return sha256.Sum256(p[:])
}

// A frontier stands for the first n leaves: the roots of the largest complete
// subtrees, one for each bit set in n, the largest first.

func frontierLen(n uint64) int { return bits.OnesCount64(n) }

// push adds leaf number n (from 0) to the frontier of n leaves.
func push(f []hash, n uint64, leaf hash) []hash {
	for ; n&1 == 1; n >>= 1 {
		leaf = nodeHash(f[len(f)-1], leaf)
		f = f[:len(f)-1]
	}
	return append(f, leaf)
}

// root is the tree's hash.
func root(f []hash) hash {
	if len(f) == 0 {
		return sha256.Sum256(nil)
	}
	r := f[len(f)-1]
	for i := len(f) - 2; i >= 0; i-- {
		r = nodeHash(f[i], r)
	}
	return r
}

// split is the largest power of two below n, which is at least 2.
func split(n uint64) uint64 { return 1 << (bits.Len64(n-1) - 1) }

// leaves gives the hashes of subtrees from the entries that are still here and
// the frontier of those that are not.
type leaves struct {
	line    func(seq uint64) ([]byte, error) // of an entry that is here
	first   uint64
	expired map[[2]uint64]hash // complete subtrees below first
}

// newLeaves takes the entries from first on, and the frontier of those before.
func newLeaves(first uint64, expired []hash, line func(seq uint64) ([]byte, error)) leaves {
	l := leaves{line: line, first: first, expired: map[[2]uint64]hash{}}
	lo := uint64(0)
	for i, n := range subtrees(first) {
		l.expired[[2]uint64{lo, lo + n}] = expired[i]
		lo += n
	}
	return l
}

// leaves of the log in b.
func (st state) leaves(b Bucket) leaves {
	return newLeaves(st.first, st.expired, func(seq uint64) ([]byte, error) { return loadLine(b, seq) })
}

// subtrees are the sizes of the complete subtrees of n leaves, the largest first.
func subtrees(n uint64) []uint64 {
	var out []uint64
	for n > 0 {
		top := uint64(1) << (bits.Len64(n) - 1)
		out = append(out, top)
		n -= top
	}
	return out
}

// hash is the hash of the subtree over leaves lo..hi-1.
func (l leaves) hash(lo, hi uint64) (hash, error) {
	if hi <= l.first {
		h, ok := l.expired[[2]uint64{lo, hi}]
		if !ok {
			return hash{}, errkind.Errorf(errkind.NotFound, "log entries %d to %d were expired", lo, hi-1)
		}
		return h, nil
	}
	if hi-lo == 1 {
		line, err := l.line(lo)
		if err != nil {
			return hash{}, err
		}
		return leafHash(line), nil
	}
	k := split(hi - lo)
	left, err := l.hash(lo, lo+k)
	if err != nil {
		return hash{}, err
	}
	right, err := l.hash(lo+k, hi)
	if err != nil {
		return hash{}, err
	}
	return nodeHash(left, right), nil
}

// frontier is the frontier of the first n leaves.
func (l leaves) frontier(n uint64) ([]hash, error) {
	var f []hash
	lo := uint64(0)
	for _, size := range subtrees(n) {
		h, err := l.hash(lo, lo+size)
		if err != nil {
			return nil, err
		}
		f = append(f, h)
		lo += size
	}
	return f, nil
}

// path is the inclusion proof of leaf m among the first n, nearest sibling first.
func (l leaves) path(m, n uint64) ([]hash, error) {
	var out []hash
	lo, hi := uint64(0), n
	for hi-lo > 1 {
		k := split(hi - lo)
		var h hash
		var err error
		if m < lo+k {
			h, err = l.hash(lo+k, hi)
			hi = lo + k
		} else {
			h, err = l.hash(lo, lo+k)
			lo += k
		}
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	slices.Reverse(out)
	return out, nil
}

// rootFromPath computes the root of n leaves from leaf m and its proof; ok is
// false if the proof has the wrong length.
func rootFromPath(leaf hash, m, n uint64, path []hash) (r hash, ok bool) {
	if m >= n {
		return hash{}, false
	}
	r = leaf
	last := n - 1
	for _, h := range path {
		if last == 0 {
			return hash{}, false
		}
		if m&1 == 1 || m == last {
			r = nodeHash(h, r)
			for m&1 == 0 && m != 0 {
				m >>= 1
				last >>= 1
			}
		} else {
			r = nodeHash(r, h)
		}
		m >>= 1
		last >>= 1
	}
	return r, last == 0
}
