package tsm_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// memVault is protected memory in memory. Each transaction function runs twice,
// as a real vault's may. It can lose power at its nth write.
type memVault struct {
	mu     sync.Mutex
	data   map[string][]byte
	writes int // Put and Delete calls that counted
	cutAt  int // power fails at this write; 0 never
	torn   bool
	once   bool // run functions once only
}

var errPower = errors.New("power cut")

func newVault() *memVault { return &memVault{data: map[string][]byte{}} }

type memTx struct {
	v    *memVault
	data map[string][]byte
	ro   bool
}

func (v *memVault) View(_ context.Context, fn func(tsm.Tx) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return fn(&memTx{v: v, data: v.data, ro: true})
}

func (v *memVault) Update(ctx context.Context, fn func(tsm.Tx) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.torn {
		return errPower
	}
	if !v.once {
		rehearsal := &memVault{}
		_ = fn(&memTx{v: rehearsal, data: maps.Clone(v.data)})
	}
	tx := &memTx{v: v, data: maps.Clone(v.data)}
	if err := fn(tx); err != nil {
		return err
	}
	v.data = tx.data
	return nil
}

// reopen is the vault after power came back.
func (v *memVault) reopen() *memVault {
	v.mu.Lock()
	defer v.mu.Unlock()
	return &memVault{data: maps.Clone(v.data)}
}

func (t *memTx) write() error {
	if t.ro {
		return errors.New("write in a read-only transaction")
	}
	t.v.writes++
	if t.v.cutAt != 0 && t.v.writes >= t.v.cutAt {
		t.v.torn = true
		return errPower
	}
	return nil
}

func (t *memTx) Get(key []byte) ([]byte, error) { return slices.Clone(t.data[string(key)]), nil }

func (t *memTx) Put(key, value []byte) error {
	if err := t.write(); err != nil {
		return err
	}
	t.data[string(key)] = slices.Clone(value)
	return nil
}

func (t *memTx) Delete(key []byte) error {
	if err := t.write(); err != nil {
		return err
	}
	delete(t.data, string(key))
	return nil
}

func (t *memTx) Range(prefix []byte, fn func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(t.data)) {
		if strings.HasPrefix(k, string(prefix)) {
			if err := fn([]byte(k), slices.Clone(t.data[k])); err != nil {
				return err
			}
		}
	}
	return nil
}
