package sts

// bitNetwork is a fixed permutation of the 64 bits of a word as a Benes network:
// 11 stages that exchange bits at distances 32, 16, ..., 1, ..., 16, 32, each
// where its mask says so. Applying it takes no table lookup and no branch.
type bitNetwork [11]uint64

// newBitNetwork routes the permutation that moves bit i to position to[i].
func newBitNetwork(to [64]byte) (net bitNetwork) {
	net.route(to[:], 0, 0)
	return net
}

// route sets the masks of stage depth and its mirror for the bits from offset
// on, then those of the two halves. The two inputs of an exchange, and the two
// outputs, must take different halves: following that constraint from pair to
// pair closes a loop, and each loop is free to start in either half.
func (net *bitNetwork) route(to []byte, offset, depth int) {
	h := len(to) / 2
	if h == 1 {
		net[depth] |= uint64(to[0]) << offset
		return
	}
	from := make([]int, len(to))
	for i, j := range to {
		from[j] = i
	}
	half := make([]byte, len(to)) // of each input; 2 is not yet chosen
	for i := range half {
		half[i] = 2
	}
	sub := [2][]byte{make([]byte, h), make([]byte, h)}
	for start := range to {
		for i := start; half[i] == 2; {
			partner := i ^ h
			half[i], half[partner] = 0, 1
			i = from[int(to[partner])^h]
		}
	}
	for i, j := range to {
		b := half[i]
		sub[b][i%h] = j % byte(h)
		if i < h {
			net[depth] |= uint64(b) << (offset + i)
		}
		if int(j) < h {
			net[10-depth] |= uint64(b) << (offset + int(j))
		}
	}
	net.route(sub[0], offset, depth+1)
	net.route(sub[1], offset+h, depth+1)
}

func exchange(x, mask uint64, distance uint) uint64 {
	t := (x>>distance ^ x) & mask
	return x ^ t ^ t<<distance
}

// apply moves the bits.
func (net *bitNetwork) apply(x uint64) uint64 {
	x = exchange(x, net[0], 32)
	x = exchange(x, net[1], 16)
	x = exchange(x, net[2], 8)
	x = exchange(x, net[3], 4)
	x = exchange(x, net[4], 2)
	x = exchange(x, net[5], 1)
	x = exchange(x, net[6], 2)
	x = exchange(x, net[7], 4)
	x = exchange(x, net[8], 8)
	x = exchange(x, net[9], 16)
	return exchange(x, net[10], 32)
}

// reverse moves the bits back.
func (net *bitNetwork) reverse(x uint64) uint64 {
	x = exchange(x, net[10], 32)
	x = exchange(x, net[9], 16)
	x = exchange(x, net[8], 8)
	x = exchange(x, net[7], 4)
	x = exchange(x, net[6], 2)
	x = exchange(x, net[5], 1)
	x = exchange(x, net[4], 2)
	x = exchange(x, net[3], 4)
	x = exchange(x, net[2], 8)
	x = exchange(x, net[1], 16)
	return exchange(x, net[0], 32)
}
