package tsm

import (
	"context"
	"fmt"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// attributesOf joins a register's attributes with what is left of its limits.
func attributesOf(register int, s stored, l limits) Attributes {
	a := s.Attr
	return Attributes{
		Register: register, KMC: s.KMC, ACT: a.ACT, BDT: a.BDT, CLM: l.clm, CLU: a.CLU, DKG: a.DKG, EXP: a.EXP,
		IUT: a.IUT, KCV: a.KCV, KEN: a.KEN, KRN: a.KRN, KTC: typeOf(a.KTC), SBM: a.SBM, SGC: a.SGC, SGN: a.SGN, ULM: l.ulm,
	}
}

// Attributes returns what is in a register: SM?GA. CodeRegisterEmpty if nothing is.
func (m *Module) Attributes(tx Tx, register int) (Attributes, error) {
	if err := m.ready(); err != nil {
		return Attributes{}, err
	}
	if err := m.checkRegister(register); err != nil {
		return Attributes{}, err
	}
	found, err := m.attributes(tx, []int{register})
	if err != nil {
		return Attributes{}, err
	}
	if len(found) == 0 {
		return Attributes{}, refuse(CodeRegisterEmpty, "register %d holds no key", register)
	}
	return found[0], nil
}

// Registers returns the attributes of every loaded key, by register.
func (m *Module) Registers(tx Tx) ([]Attributes, error) {
	if err := m.ready(); err != nil {
		return nil, err
	}
	var all []int
	if err := eachLimit(tx, func(register int, _ limits) { all = append(all, register) }); err != nil {
		return nil, err
	}
	return m.attributes(tx, all)
}

// Find returns the keys of a supply group and revision, newest base date first;
// revision 0 finds all of the group.
func (m *Module) Find(tx Tx, sgc, krn int) ([]Attributes, error) {
	if err := m.ready(); err != nil {
		return nil, err
	}
	s := m.search()
	defer m.searches.Put(s)
	registers, err := s.find(tx, sgc, krn)
	if err != nil {
		return nil, err
	}
	return m.attributes(tx, registers)
}

func (m *Module) attributes(tx Tx, registers []int) ([]Attributes, error) {
	licence, err := licenceIn(tx)
	if err != nil {
		return nil, err
	}
	loading, err := loadingSlots(tx)
	if err != nil {
		return nil, err
	}
	now := m.Now()
	out := make([]Attributes, 0, len(registers))
	for _, register := range registers {
		l, found, err := getLimits(tx, register)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		s, _, err := m.key(tx, register, l.id, nil)
		if err != nil {
			return nil, err
		}
		a := attributesOf(register, s, l)
		a.Reason = m.whyNot(a, licence, loading&(1<<l.slot) != 0, now)
		a.VND = a.Reason == ""
		out = append(out, a)
	}
	return out, nil
}

// whyNot says why a key cannot vend now, "" if it can. A default key vends what
// a default key may, so its type is no reason.
func (m *Module) whyNot(a Attributes, l Licence, loading bool, now time.Time) string {
	tid, err := sts.BaseDate(a.BDT).TID(now)
	switch {
	case l.Loaded && l.Left == 0:
		return "no transactions are left; load a transaction licence"
	case l.Loaded && !l.InhibitVend.IsZero() && now.After(l.InhibitVend):
		return "vending is inhibited since " + stamp(l.InhibitVend)
	case loading && !m.profile.vendWhileLoading:
		return "the key-agreement session of KMC " + a.KMC + " is not ended"
	case a.DKG == 1:
		return "decoder-key generation algorithm 01 is not supported"
	case now.Before(a.ACT):
		return "not active before " + stamp(a.ACT)
	case now.After(a.IUT) && !m.cfg.TestMode:
		return "issued until " + stamp(a.IUT)
	case err != nil && now.Before(sts.BaseDate(a.BDT).Time(0)):
		return fmt.Sprintf("the base date %d lies ahead", a.BDT)
	case err != nil:
		return fmt.Sprintf("the token identifiers of base date %d are used up", a.BDT)
	case sts.KEN(a.KEN).Expired(tid):
		return fmt.Sprintf("expired by its expiry number %d", a.KEN)
	case expired(a, now):
		return "expired after " + a.EXP.UTC().Format(time.DateOnly)
	case a.ULM == 0:
		return "the unit limit is used up"
	case a.CLM == 0:
		return "the currency limit is used up"
	}
	return ""
}

// LogEntry returns audit entry n, from 1: SM?QL.
func (m *Module) LogEntry(ctx context.Context, n uint64) (e Entry, err error) {
	err = m.view(ctx, func(tx Tx) error {
		found := false
		if m.cfg.AuditEntry != nil && n > 0 {
			var err error
			if e, found, err = m.cfg.AuditEntry(tx, n); err != nil {
				return err
			}
		}
		if !found {
			return refuse(CodeLogRange, "the log has no entry %d", n)
		}
		return nil
	})
	return e, err
}
