package main

import (
	"context"
	"sync"

	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// knownCounter is the partition's counter, which is not asked for what is known of
// it: nobody but the holder of the partition raises it, and it came with the key.
// A start, which as a rule finds the store where the last process left it, need
// not wait for the module then.
type knownCounter struct {
	store.Counter

	mu    sync.Mutex
	at    uint64 // where it stands
	asked uint64 // what it was last to be raised to
}

// known is where the counter stands at most, if nobody else raises it: a raise whose
// answer was lost may have been the last thing that the module did.
func (k *knownCounter) known() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return max(k.at, k.asked)
}

func (k *knownCounter) Raise(ctx context.Context, v uint64) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v <= k.at {
		return k.at, nil
	}
	k.asked = v
	at, err := k.Counter.Raise(ctx, v)
	if err == nil {
		k.at = at
	}
	return at, err
}
