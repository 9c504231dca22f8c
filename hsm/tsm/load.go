package tsm

import (
	"context"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// LoadKey loads one VK.WRAP.1 record: SM?KL. Register 0 chooses: the register
// that holds the same key, else the lowest free one. Limits start at what the
// KMC set.
func (m *Module) LoadKey(ctx context.Context, kmc, record string, register int) (Attributes, error) {
	if err := m.ready(); err != nil {
		return Attributes{}, err
	}
	if register != 0 {
		if err := m.checkRegister(register); err != nil {
			return Attributes{}, err
		}
	}
	var out Attributes
	err := m.update(ctx, func(tx Tx) error {
		s, err := slotOf(tx, kmc)
		if err != nil {
			return err
		}
		if s == nil || s.state() != StateLoading {
			return refuse(CodeKMCKeyState, "KMC %s has no key-agreement session (state LOADING); generate a VKLOADREQ and upload the KLF that answers it", kmc)
		}
		defer s.wipe()
		attr, vk, err := openRecord(record, s)
		if err != nil {
			return err
		}
		defer clear(vk)
		n, err := m.chooseRegister(tx, s.number, register, attr)
		if err != nil {
			return err
		}
		st := stored{Slot: s.number, KMC: s.KMC, Attr: attr}
		if err := putRegister(tx, n, st, vk); err != nil {
			return err
		}
		out = attributesOf(n, st, limits{ulm: attr.ULM, clm: attr.CLM})
		return m.audit(tx, Event{Kind: "key.load", Actor: actorOf(ctx), Subject: keyload.KeyName(attr.SGC, attr.KRN), Detail: detail(
			"register", n, "kmc", s.KMC, "kcv", attr.KCV, "bdt", attr.BDT, "ktc", attr.KTC)})
	})
	m.forget(err)
	return out, err
}

// openRecord authenticates, reads and unwraps a key record, in the documented order.
func openRecord(record string, s *slotRecord) (keyload.KeyAttributes, []byte, error) {
	rec, err := keyload.ParseWrappedKey(record)
	if err != nil {
		return keyload.KeyAttributes{}, nil, refuse(CodeDFFormat, "key record: %s", err)
	}
	if err := keyload.Authenticate(rec, s.KID, s.KAK); err != nil {
		return keyload.KeyAttributes{}, nil, refuse(CodeAuthentication, "%s; load it from the KLF that was uploaded last", err)
	}
	attr, err := keyload.Attributes(rec)
	if err != nil {
		return keyload.KeyAttributes{}, nil, refuse(CodeAttribute, "key record: %s", err)
	}
	vk, err := keyload.UnwrapVendingKey(rec, s.KEK)
	if err != nil {
		return keyload.KeyAttributes{}, nil, refuse(CodeAttribute, "key record of %s: %s", keyload.KeyName(attr.SGC, attr.KRN), err)
	}
	if err := checkKCV(attr, vk); err != nil {
		clear(vk)
		return keyload.KeyAttributes{}, nil, err
	}
	return attr, vk, nil
}

func checkKCV(attr keyload.KeyAttributes, vk []byte) error {
	name := keyload.KeyName(attr.SGC, attr.KRN)
	kcv, err := vendingKeyKCV(attr.DKG, vk)
	if err != nil {
		return refuse(CodeAttribute, "key record of %s: the key does not suit decoder-key generation algorithm %02d", name, attr.DKG)
	}
	if kcv != attr.KCV {
		return refuse(CodeAttribute, "key record of %s: the key check value does not match", name)
	}
	return nil
}

// vendingKeyKCV computes the check value of a key for an algorithm.
func vendingKeyKCV(dkg int, vk []byte) (string, error) {
	g := sts.DKGA(dkg)
	if dkg == 1 {
		g = sts.DKGA02 // the same 64-bit keys
	}
	k, err := sts.NewVendingKey(g, vk)
	if err != nil {
		return "", err
	}
	defer k.Wipe()
	return k.KCV().String(), nil
}

// chooseRegister finds the register for a key and empties it. Within a slot a
// key (supply group, revision, base date) is in one register at most.
func (m *Module) chooseRegister(tx Tx, slot, wanted int, attr keyload.KeyAttributes) (int, error) {
	same, err := m.sameKey(tx, slot, attr)
	if err != nil {
		return 0, err
	}
	n := wanted
	switch {
	case wanted != 0:
		l, found, err := getLimits(tx, wanted)
		if err != nil {
			return 0, err
		}
		if found && l.slot != slot {
			return 0, refuse(CodeNoRegister, "register %d holds a key of another KMC; delete that key first", wanted)
		}
	case same != 0:
		n = same
	default:
		if n, err = m.freeRegister(tx); err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, refuse(CodeNoRegister, "all %d vending-key registers are in use; delete keys that are not needed and load the others one by one", m.cfg.Registers)
		}
	}
	for _, r := range []int{n, same} {
		if r == 0 {
			continue
		}
		if err := eraseRegister(tx, r); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// sameKey returns the slot's register that holds the key attr names, 0 if none.
func (m *Module) sameKey(tx Tx, slot int, attr keyload.KeyAttributes) (int, error) {
	registers, err := newSearch().find(tx, attr.SGC, attr.KRN)
	if err != nil {
		return 0, err
	}
	for _, r := range registers {
		l, found, err := getLimits(tx, r)
		if err != nil {
			return 0, err
		}
		if !found || l.slot != slot {
			continue
		}
		s, _, err := m.key(tx, r, l.id, nil)
		if err != nil {
			return 0, err
		}
		if s.Attr.BDT == attr.BDT {
			return r, nil
		}
	}
	return 0, nil
}

// Finish ends the key-agreement session of a slot: SM?KF. Nothing more can be
// loaded from that KLF.
func (m *Module) Finish(ctx context.Context, kmc string) (loaded int, err error) {
	err = m.update(ctx, func(tx Tx) error {
		s, err := slotOf(tx, kmc)
		if err != nil {
			return err
		}
		if s == nil || s.state() != StateLoading {
			return refuse(CodeKMCKeyState, "KMC %s has no key-agreement session to end", kmc)
		}
		s.endSession()
		if err := putSlot(tx, s); err != nil {
			return err
		}
		registers, err := registersOfSlot(tx, s.number)
		if err != nil {
			return err
		}
		loaded = len(registers)
		return m.audit(tx, Event{Kind: "kmc.finish", Actor: actorOf(ctx), Subject: kmc, Detail: detail("registers", loaded)})
	})
	return loaded, err
}

// DeleteKey erases one register: SM?KD.
func (m *Module) DeleteKey(ctx context.Context, register int) (kcv string, err error) {
	if err := m.ready(); err != nil {
		return "", err
	}
	if err := m.checkRegister(register); err != nil {
		return "", err
	}
	err = m.update(ctx, func(tx Tx) error {
		s, vk, found, err := readRegister(tx, register)
		if err != nil {
			return err
		}
		clear(vk)
		if !found {
			return refuse(CodeRegisterEmpty, "register %d holds no key", register)
		}
		if err := eraseRegister(tx, register); err != nil {
			return err
		}
		kcv = s.Attr.KCV
		return m.audit(tx, Event{Kind: "key.delete", Actor: actorOf(ctx), Subject: keyload.KeyName(s.Attr.SGC, s.Attr.KRN),
			Detail: detail("register", register, "kmc", s.KMC, "kcv", kcv)})
	})
	m.forget(err)
	return kcv, err
}
