package pos

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Buckets of this package besides BucketResults.
const (
	bucketMeters = "meters" // PAN -> memory
	bucketNamed  = "named"  // PAN, minute, base date -> the token that has it
)

// Credit issues a credit token, after a key-change set if one is due.
func (s *Service) Credit(ctx context.Context, in Issue) ([]Token, error) {
	return s.issue(ctx, classCredit, in)
}

// Management issues an engineering token, after a key-change set if one is due.
func (s *Service) Management(ctx context.Context, in Issue) ([]Token, error) {
	return s.issue(ctx, classManagement, in)
}

// SetControl issues the engineering token that sets a flag or a register.
func (s *Service) SetControl(ctx context.Context, in Control) ([]Token, error) {
	if _, err := in.Meter.check(s.now()); err != nil {
		return nil, err
	}
	most, values := 62, 1023
	if in.IsFlag {
		most, values = 511, 1
	}
	if err := first(errors.Join(inRange("index", in.Index, 0, most), inRange("value", in.Value, 0, values))); err != nil {
		return nil, err
	}
	field, err := sts.ExtendedRegister(uint16(in.Index), uint16(in.Value))
	if in.IsFlag {
		field, err = sts.ExtendedFlag(uint16(in.Index), in.Value == 1)
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "control element: %w", err)
	}
	return s.issue(ctx, classManagement, Issue{
		Caller: in.Caller, MessageID: in.MessageID, Meter: in.Meter,
		Subclass: int(sts.WriteExtendedToken), Amount: float64(field), Time: in.Time, Flags: in.Flags,
	})
}

// absurdCurrency is an amount that no customer pays: some clients are known to
// multiply by 100000 first.
const absurdCurrency = 1e7

// request is a checked issuing call.
type request struct {
	meter    meter
	class    int
	subclass int
	kind     kind
	field    uint32
	wish     wish
	now      time.Time
	audit    tsm.Request
}

func (s *Service) issue(ctx context.Context, class int, in Issue) ([]Token, error) {
	r := request{class: class, subclass: in.Subclass, now: s.now(), audit: auditOf(in.Caller, in.MessageID)}
	var err error
	if r.meter, err = in.Meter.check(r.now); err != nil {
		return nil, err
	}
	if r.kind, err = kindOf(class, in.Subclass); err != nil {
		return nil, err
	}
	if class == classManagement && IsProprietary(in.Subclass) {
		if err := s.CheckProprietary(); err != nil {
			return nil, err
		}
	}
	if r.field, err = r.kind.encode(in.Amount); err != nil {
		return nil, err
	}
	if r.wish, err = wishOf(r.now, in.Time, in.Flags); err != nil {
		return nil, err
	}
	if r.kind.coding == codedCurrency && math.Abs(in.Amount) >= absurdCurrency {
		s.log.Warn("a currency amount is absurdly large; the interface counts in the base unit, not in hundred-thousandths",
			"caller", in.Caller.Username, "message", in.MessageID, "amount", in.Amount)
	}
	st := s.step()
	st.request = r
	return st.commit(ctx, in.Caller, in.MessageID, st.vend)
}

// CheckProprietary refuses the proprietary subclasses unless they are enabled.
func (s *Service) CheckProprietary() error {
	if s.prefs.Bool(accounts.PrefAllowProprietary) {
		return nil
	}
	return Faultf(Disabled, "preference "+accounts.PrefAllowProprietary+" is 0")
}

func auditOf(c Caller, messageID string) tsm.Request {
	return tsm.Request{Actor: c.Realm + ":" + c.Username, Note: [2]string{"message", messageID}}
}

// explain turns an error of the transaction into a client's fault.
func (s *Service) explain(ctx context.Context, err error) error {
	var gone *missingKey
	var refused *tsm.Error
	switch {
	case errors.As(err, &gone):
	case errors.As(err, &refused):
		return FaultOf(err)
	case s.store.Failed() != nil:
		return unknownOutcome(err)
	default:
		return err
	}
	reason := "not in the security module"
	if s.keys != nil {
		lookup := s.store.View(ctx, func(tx *store.Tx) error {
			text, err := s.keys.Missing(tx, gone.sgc, gone.krn)
			if err == nil && text != "" {
				reason = text
			}
			return err
		})
		if lookup != nil {
			s.log.Warn("no reason for a missing vending key", "sgc", gone.sgc, "krn", gone.krn, "error", lookup)
		}
	}
	return Faultf(KeyNotFound, gone.sgc, gone.krn, reason)
}

// vend makes the tokens of a request inside a transaction.
func (s *Service) vend(tx *store.Tx, r *request) ([]Token, error) {
	sm := tx.Bucket(s.moduleBucket)
	p, err := planKeys(&r.meter, r.meter.New, effectiveAt(r.now, s.testMode), s.keyView(sm))
	if err != nil {
		return nil, err
	}
	var out []Token
	if p.change {
		if out, err = s.keyChangeSet(sm, &r.meter, p, r.audit); err != nil {
			return nil, err
		}
	}
	t, err := s.identified(tx, sm, r, p)
	if err != nil {
		return nil, err
	}
	return append(out, t), nil
}

func (s *Service) keyView(sm tsm.Tx) keyView {
	return func(sgc, krn int) ([]tsm.Attributes, error) { return s.module.Find(sm, sgc, krn) }
}

// identified makes the one token of a request that carries a token identifier.
func (s *Service) identified(tx *store.Tx, sm tsm.Tx, r *request, p plan) (Token, error) {
	meters := tx.Bucket(bucketMeters)
	pan := []byte(r.meter.panText)
	raw, err := meters.Get(pan)
	if err != nil {
		return Token{}, err
	}
	mem, err := decodeMemory(raw)
	if err != nil {
		return Token{}, err
	}
	base := sts.BaseDate(p.to.BDT)
	if r.wish.fixed {
		return s.named(tx, sm, r, p, &mem)
	}
	// The key's own limits first: a meter's list must not hide that a key is
	// not usable yet.
	if _, err := tidUnder(p.to, r.wish.minute); err != nil {
		return Token{}, err
	}
	minute, err := mem.next(r.wish.minute)
	if err != nil {
		return Token{}, err
	}
	tid, err := tidUnder(p.to, minute)
	if err != nil {
		return Token{}, err
	}
	t, err := s.make(sm, r, p, tid)
	if err != nil {
		return Token{}, err
	}
	mem.ordinary.add(uint32(base.Minute1993(tid)))
	return t, meters.Put(pan, mem.encode(make([]byte, 0, 256)))
}

// tidUnder re-bases a minute to a key, within the key's life.
func tidUnder(key tsm.Attributes, minute int64) (sts.TID, error) {
	tid, err := sts.BaseDate(key.BDT).TIDOfMinute1993(minute)
	switch {
	case errors.Is(err, sts.ErrBeforeBaseDate):
		return 0, Faultf(VKBeforeBDT)
	case err != nil || sts.KEN(key.KEN).Expired(tid):
		return 0, Faultf(VKExpired)
	}
	return tid, nil
}

// named makes a token whose minute the caller named, or answers the one that
// has it already.
func (s *Service) named(tx *store.Tx, sm tsm.Tx, r *request, p plan, mem *memory) (Token, error) {
	tid, err := tidUnder(p.to, r.wish.minute)
	if err != nil {
		return Token{}, err
	}
	taken := outOfRange("tokenTime", sts.BaseDate1993.Time(0).Add(time.Duration(r.wish.minute)*time.Minute).Format("2006-01-02T15:04Z"),
		"a minute that no other token of this meter has")
	tokens := tx.Bucket(bucketNamed)
	key := namedKey(r.meter.panText, uint32(r.wish.minute), p.to.BDT)
	found := mem.useOf(r.wish.minute)
	if found == unknown {
		return Token{}, taken
	}
	if found == again {
		raw, err := tokens.Get(key)
		if err != nil {
			return Token{}, err
		}
		if raw != nil {
			before, err := decodeTokens(raw)
			if err != nil {
				return Token{}, err
			}
			if len(before) != 1 || !sameToken(before[0], r, p) {
				return Token{}, taken
			}
			before[0].TCT, before[0].ReservedTID = r.meter.TCT, r.wish.special
			return before[0], nil
		}
		// The minute was used under another base date: another identifier.
	}
	t, err := s.make(sm, r, p, tid)
	if err != nil {
		return Token{}, err
	}
	if err := tokens.Put(key, encodeTokens(nil, []Token{t})); err != nil {
		return Token{}, err
	}
	if found == again {
		return t, nil
	}
	if old, full := mem.ownList(r.wish.minute).add(uint32(r.wish.minute)); full {
		for _, base := range []int{1993, 2014, 2035} {
			if err := tokens.Delete(namedKey(r.meter.panText, old, base)); err != nil {
				return Token{}, err
			}
		}
	}
	return t, tx.Bucket(bucketMeters).Put([]byte(r.meter.panText), mem.encode(make([]byte, 0, 256)))
}

func namedKey(pan string, minute uint32, base int) []byte {
	k := append(make([]byte, 0, len(pan)+6), pan...)
	k = binary.BigEndian.AppendUint32(k, minute)
	return binary.BigEndian.AppendUint16(k, uint16(base))
}

// sameToken reports whether r asks for the content of t under the same key.
func sameToken(t Token, r *request, p plan) bool {
	amount, _ := r.kind.amounts(r.field)
	return t.Class == r.class && t.Subclass == r.subclass && t.Amount == amount && t.EA == r.meter.EA &&
		t.SGC == p.to.SGC && t.KRN == p.to.KRN && t.TI == p.toTI && t.VKKCV == p.to.KCV
}

// make has the module make the token.
func (s *Service) make(sm tsm.Tx, r *request, p plan, tid sts.TID) (Token, error) {
	var made tsm.Issued
	var err error
	if r.class == classCredit {
		made, err = s.module.Credit(sm, tsm.CreditInput{
			Request: r.audit, Register: p.to.Register, PAN: r.meter.panText, TI: p.toTI, EA: r.meter.EA, TCT: r.meter.TCT,
			SubClass: r.subclass, Amount: r.field, TID: uint32(tid),
		})
	} else {
		made, err = s.module.Management(sm, tsm.ManagementInput{
			Request: r.audit, Register: p.to.Register, PAN: r.meter.panText, TI: p.toTI, EA: r.meter.EA, TCT: r.meter.TCT,
			SubClass: r.subclass, Value: uint16(r.field), TID: uint32(tid),
		})
	}
	if err != nil {
		return Token{}, s.loading(err, p.to)
	}
	t := s.token(&r.meter, p.to, p.toTI, r.class, r.subclass, r.kind, r.field)
	t.TID, t.ReservedTID, t.Dec, t.Hex = int(tid), r.wish.special, made.Dec, made.Hex
	return t, nil
}

// loading tells a key whose slot is LOADING as one that is not available.
func (s *Service) loading(err error, key tsm.Attributes) error {
	if tsm.CodeOf(err) == tsm.CodeKMCKeyState {
		return Faultf(KeyNotFound, key.SGC, key.KRN, "the KEK slot of "+key.KMC+" is LOADING: end its key agreement session")
	}
	return err
}

// token fills in what does not depend on the token's digits.
func (s *Service) token(m *meter, key tsm.Attributes, ti, class, subclass int, k kind, field uint32) Token {
	amount, scaled := k.amounts(field)
	return Token{
		DRN: m.pan.DRN(), PAN: m.panText, EA: m.EA, TCT: m.TCT, SGC: key.SGC, KRN: key.KRN, TI: ti,
		Class: class, Subclass: subclass, Amount: amount, Description: k.description, STSUnitName: k.unit,
		ScaledAmount: scaled, ScaledUnitName: k.scaledUnit, IDSM: s.idSM(), VKKCV: key.KCV,
	}
}

// KeyChange issues a key-change set and nothing else.
func (s *Service) KeyChange(ctx context.Context, in KeyChange) ([]Token, error) {
	now := s.now()
	in.Meter.New = nil
	m, err := in.Meter.check(now)
	if err != nil {
		return nil, err
	}
	if err := in.New.check(); err != nil {
		return nil, err
	}
	return s.step().commit(ctx, in.Caller, in.MessageID, func(tx *store.Tx) ([]Token, error) {
		sm := tx.Bucket(s.moduleBucket)
		p, err := planKeys(&m, &in.New, effectiveAt(now, s.testMode), s.keyView(sm))
		if err != nil {
			return nil, err
		}
		return s.keyChangeSet(sm, &m, p, auditOf(in.Caller, in.MessageID))
	})
}

// keyChangeSet makes the set; its tokens name the key that encrypts them, the
// advice on the first names the new one.
func (s *Service) keyChangeSet(sm tsm.Tx, m *meter, p plan, audit tsm.Request) ([]Token, error) {
	set, err := s.module.KeyChange(sm, tsm.KeyChangeInput{
		Request: audit, RegisterOld: p.from.Register, RegisterNew: p.to.Register, PAN: m.panText,
		TIOld: p.fromTI, EA: m.EA, TCT: m.TCT, TINew: p.toTI, NumTokens: m.setSize(),
	})
	if err != nil {
		return nil, s.loading(err, p.to)
	}
	out := make([]Token, 0, maxTokens)
	for i, made := range set.Tokens {
		subclass := sectionSubclass(i)
		t := s.token(m, p.from, p.fromTI, classManagement, subclass, managementKinds[subclass], 0)
		t.Dec, t.Hex = made.Dec, made.Hex
		if i == 0 {
			t.New = advise(m, p, set.Rollover)
		}
		out = append(out, t)
	}
	return out, nil
}

func advise(m *meter, p plan, rollover bool) *Advice {
	rec := sts.IDRecord{
		PAN: m.pan, DOE: m.doe, TCT: sts.TCT(m.TCT), EA: sts.EA(m.EA),
		SGC: sts.SGC(p.to.SGC), TI: sts.TI(p.toTI), KRN: sts.KRN(p.to.KRN),
	}
	return &Advice{
		SGC: p.to.SGC, KRN: p.to.KRN, TI: p.toTI, KEN: p.to.KEN,
		IDRecord: rec.String(), Record2: rec.Record2(), Rollover: rollover, VKKCV: p.to.KCV,
	}
}

// ManufacturingKeyChange would move a meter from its manufacturing key to a
// vending key; only manufacturing firmware in its mode can.
func (s *Service) ManufacturingKeyChange(_ context.Context, _ Caller, _ string, _ MeterConfig) ([]Token, error) {
	return nil, Faultf(Disabled, "key changes from a DITK need manufacturing firmware, this is "+strconv.Quote(s.firmware))
}
