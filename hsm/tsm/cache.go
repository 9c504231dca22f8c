package tsm

import (
	"fmt"
	"sync"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// keyCache keeps expanded vending keys by the content of their register.
type keyCache struct {
	mu   sync.RWMutex
	keys map[contentID]*cachedKey
}

type cachedKey struct {
	stored
	vk *sts.VendingKey // nil if this firmware has no algorithm for the key
}

// key returns the cached form of a register, reading it from tx if need be, and
// the decoder key for p if derive is set. Wiping waits for a derivation.
func (m *Module) key(tx Tx, register int, id contentID, p *sts.KeyParams) (stored, sts.DecoderKey, error) {
	m.cache.mu.RLock()
	if k, ok := m.cache.keys[id]; ok {
		defer m.cache.mu.RUnlock()
		return k.derive(p)
	}
	m.cache.mu.RUnlock()

	s, raw, found, err := readRegister(tx, register)
	if err != nil {
		return stored{}, sts.DecoderKey{}, err
	}
	defer clear(raw)
	if !found {
		return stored{}, sts.DecoderKey{}, fmt.Errorf("protected memory: register %d has limits and no key", register)
	}
	k := &cachedKey{stored: s}
	if s.Attr.DKG != 1 { // DKGA01 has no implementation; such keys are kept and refused
		if k.vk, err = sts.NewVendingKey(sts.DKGA(s.Attr.DKG), raw); err != nil {
			return stored{}, sts.DecoderKey{}, fmt.Errorf("protected memory, register %d: %w", register, err)
		}
	}
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	m.cache.keys[id] = k
	return k.derive(p)
}

func (k *cachedKey) derive(p *sts.KeyParams) (stored, sts.DecoderKey, error) {
	if p == nil {
		return k.stored, sts.DecoderKey{}, nil
	}
	if k.vk == nil || p.EA == sts.EA11 && k.Attr.DKG != 4 {
		return k.stored, sts.DecoderKey{}, refuse(CodeKeyParam,
			"a key with decoder-key generation algorithm %02d cannot make tokens for EA%02d", k.Attr.DKG, int(p.EA))
	}
	q := *p
	q.KT, q.SGC, q.KRN = sts.KeyType(typeOf(k.Attr.KTC)), sts.SGC(k.Attr.SGC), sts.KRN(k.Attr.KRN)
	q.BaseDate = sts.BaseDate(k.Attr.BDT)
	dk, err := k.vk.DecoderKey(q)
	if err != nil {
		return k.stored, sts.DecoderKey{}, refuse(CodeKeyParam, "derive the decoder key: %s", err)
	}
	return k.stored, dk, nil
}

// forget wipes the cache after an operation that replaced or erased keys.
func (m *Module) forget(err error) {
	if err != nil {
		return
	}
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	for _, k := range m.cache.keys {
		if k.vk != nil {
			k.vk.Wipe()
		}
	}
	clear(m.cache.keys)
}

// typeOf returns the key type of a KTC value that was checked when it was loaded.
func typeOf(ktc string) KeyType {
	for _, t := range []KeyType{VDDK, VUDK, VCDK} {
		if t.String() == ktc {
			return t
		}
	}
	return 0
}
