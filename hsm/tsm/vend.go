package tsm

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// Credit makes a class 0 token: SM?VC.
func (m *Module) Credit(tx Tx, in CreditInput) (Issued, error) {
	v, err := m.begin(CommandVC)
	if err != nil {
		return Issued{}, err
	}
	if err := v.ranges(in.Register, in.TID, in.Amount, amountMax(in.SubClass)); err != nil {
		return Issued{}, err
	}
	if err := v.meter(in.PAN, in.TI, in.EA, in.TCT); err != nil {
		return Issued{}, err
	}
	if in.SubClass < 0 || in.SubClass > 7 {
		return Issued{}, refuse(CodeKeyParam, "credit subclass %d is not 0 to 7", in.SubClass)
	}
	k, err := v.vendingKey(tx, in.Register, in.TI)
	if err != nil {
		return Issued{}, err
	}
	switch a := k.attr; {
	case a.KTC == VDDK:
		return Issued{}, refuse(CodeKeyType, "register %d holds a default key (VDDK), which may not issue credit", in.Register)
	case a.KTC == VCDK && in.TCT != int(sts.TCTMagneticCard):
		return Issued{}, refuse(CodeKeyType, "register %d holds a common key (VCDK), which may issue credit only for magnetic cards (TCT 1), not TCT %d", in.Register, in.TCT)
	case a.SBM>>in.SubClass&1 == 0:
		return Issued{}, refuse(CodeSubclassNotAllowed, "the key's subclass bitmap %04X does not allow subclass %d", a.SBM, in.SubClass)
	}
	if err := v.times(k.attr, in.TID); err != nil {
		return Issued{}, err
	}
	licence, err := v.licence(tx)
	if err != nil {
		return Issued{}, err
	}
	units, err := k.debit(in.SubClass, in.Amount)
	if err != nil {
		return Issued{}, err
	}
	rnd, err := m.rnd()
	if err != nil {
		return Issued{}, err
	}
	apdu, err := creditAPDU(in, rnd)
	if err != nil {
		return Issued{}, err
	}
	out, err := v.seal(&k, apdu)
	if err != nil {
		return Issued{}, err
	}
	out.Units = units
	if err := v.commit(tx, &k, licence); err != nil {
		return Issued{}, err
	}
	return out, v.record(tx, in.Request, "token.credit", in.PAN, &k, out,
		[2]string{"subclass", strconv.Itoa(in.SubClass)}, [2]string{"units", strconv.FormatInt(units, 10)}, [2]string{"tid", tidText(in.TID)})
}

func amountMax(subclass int) uint32 {
	if subclass >= 4 {
		return uint32(sts.MaxAmount20)
	}
	return 0xFFFF
}

func creditAPDU(in CreditInput, rnd uint8) (sts.APDU, error) {
	if in.SubClass < 4 {
		return sts.Credit{Resource: sts.Resource(in.SubClass), RND: rnd, TID: sts.TID(in.TID), Amount: sts.Amount16(in.Amount)}.APDU()
	}
	return sts.CurrencyCredit{Resource: sts.Resource(in.SubClass - 4), TID: sts.TID(in.TID), Amount: sts.Amount20(in.Amount)}.APDU()
}

// Management makes a class 2 token that is no key change: SM?VM.
func (m *Module) Management(tx Tx, in ManagementInput) (Issued, error) {
	v, err := m.begin(CommandVM)
	if err != nil {
		return Issued{}, err
	}
	if err := v.ranges(in.Register, in.TID, 0, 0); err != nil {
		return Issued{}, err
	}
	if err := v.meter(in.PAN, in.TI, in.EA, in.TCT); err != nil {
		return Issued{}, err
	}
	switch in.SubClass {
	case 0, 1, 2, 5, 6, 7, 10, 11, 12, 13, 14, 15:
	default:
		return Issued{}, refuse(CodeKeyParam, "management subclass %d cannot be issued; key changes have their own command", in.SubClass)
	}
	k, err := v.vendingKey(tx, in.Register, in.TI)
	if err != nil {
		return Issued{}, err
	}
	if err := v.times(k.attr, in.TID); err != nil {
		return Issued{}, err
	}
	licence, err := v.licence(tx)
	if err != nil {
		return Issued{}, err
	}
	rnd, err := m.rnd()
	if err != nil {
		return Issued{}, err
	}
	apdu, err := sts.Management{SubClass: sts.SubClass(in.SubClass), RND: rnd, TID: sts.TID(in.TID), Value: in.Value}.APDU()
	if err != nil {
		return Issued{}, refuse(CodeKeyParam, "value %04X of management subclass %d: %s", in.Value, in.SubClass, err)
	}
	out, err := v.seal(&k, apdu)
	if err != nil {
		return Issued{}, err
	}
	if err := v.commit(tx, &k, licence); err != nil {
		return Issued{}, err
	}
	return out, v.record(tx, in.Request, "token.management", in.PAN, &k, out,
		[2]string{"subclass", strconv.Itoa(in.SubClass)}, [2]string{"value", fmt.Sprintf("%04X", in.Value)}, [2]string{"tid", tidText(in.TID)})
}

// vend is one token command in the making: the module, its time, the meter.
type vend struct {
	m   *Module
	now time.Time
	pan sts.PAN
	ea  sts.EA
}

// vendKey is a register during one command.
type vendKey struct {
	register int
	limits   limits
	attr     Attributes
	decoder  sts.DecoderKey
	debited  bool
}

func (m *Module) begin(c Command) (vend, error) {
	if err := m.ready(); err != nil {
		return vend{}, err
	}
	if !m.Supports(c) {
		return vend{}, refuse(CodeInvalidHeader, "firmware %s has no command SM?%s", m.cfg.FirmwareID, c)
	}
	return vend{m: m, now: m.Now()}, nil
}

func (v *vend) ranges(register int, tid, amount, amountMax uint32) error {
	if err := v.m.checkRegister(register); err != nil {
		return err
	}
	if tid > uint32(sts.MaxTID) {
		return refuse(CodePTVDRange, "token identifier %X has more than 24 bits", tid)
	}
	if amount > amountMax {
		return refuse(CodePTVDRange, "amount field %X is above %X", amount, amountMax)
	}
	return nil
}

func (v *vend) meter(pan string, ti, ea, tct int) (err error) {
	if len(pan) != 18 {
		return refuse(CodeInvalidPAN, "a meter PAN has 18 digits, not %d characters", len(pan))
	}
	if v.pan, err = sts.ParsePAN(pan); err != nil {
		return refuse(CodeInvalidPAN, "meter PAN %q: %s", pan, err)
	}
	v.ea = sts.EA(ea)
	switch {
	case ea != 7 && ea != 11:
		return refuse(CodeKeyParam, "encryption algorithm %d is neither 7 nor 11", ea)
	case ti < 0 || ti > 99:
		return refuse(CodeKeyParam, "tariff index %d is not 0 to 99", ti)
	case tct < 0 || tct > 99:
		return refuse(CodeKeyParam, "token carrier type %d is not 0 to 99", tct)
	}
	return nil
}

// vendingKey reads a register for vending and derives the meter's key.
func (v *vend) vendingKey(tx Tx, register, ti int) (vendKey, error) {
	k, err := v.anyKey(tx, register, ti)
	if err != nil {
		return vendKey{}, err
	}
	loading, err := loadingSlots(tx)
	if err != nil {
		return vendKey{}, err
	}
	if loading&(1<<k.limits.slot) != 0 && !v.m.profile.vendWhileLoading {
		return vendKey{}, refuse(CodeKMCKeyState, "register %d belongs to KMC %s, whose key-agreement session is not ended (state LOADING); end it first", register, k.attr.KMC)
	}
	return k, nil
}

// anyKey reads a register without regard to its slot's state.
func (v *vend) anyKey(tx Tx, register, ti int) (vendKey, error) {
	l, found, err := getLimits(tx, register)
	if err != nil {
		return vendKey{}, err
	}
	if !found {
		return vendKey{}, refuse(CodeRegisterEmpty, "register %d holds no key", register)
	}
	s, decoder, err := v.m.key(tx, register, l.id, &sts.KeyParams{PAN: v.pan, EA: v.ea, TI: sts.TI(ti)})
	if err != nil {
		return vendKey{}, err
	}
	return vendKey{register: register, limits: l, attr: attributesOf(register, s, l), decoder: decoder}, nil
}

// times checks activation, issue, expiry and the window, in that order.
func (v *vend) times(a Attributes, tid uint32) error {
	if err := v.active(a); err != nil {
		return err
	}
	if err := v.issued(a); err != nil {
		return err
	}
	if sts.KEN(a.KEN).Expired(sts.TID(tid)) {
		return refuse(CodeKeyExpired, "token identifier %06X is beyond the key's expiry number %d", tid, a.KEN)
	}
	if expired(a, v.now) {
		return refuse(CodeKeyExpired, "the key expired after %s; the module's clock is %s", a.EXP.Format(time.DateOnly), stamp(v.now))
	}
	if v.m.cfg.TestMode {
		return nil
	}
	at := sts.BaseDate(a.BDT).Time(sts.TID(tid))
	if at.Sub(v.now.Truncate(time.Minute)).Abs() > v.m.cfg.Window {
		return refuse(CodeTIDOutOfWindow, "token identifier %06X is %s; that is more than %s from the module's clock %s",
			tid, stamp(at), v.m.cfg.Window, stamp(v.now))
	}
	return nil
}

func (v *vend) active(a Attributes) error {
	if v.now.Before(a.ACT) {
		return refuse(CodeKeyNotYetActive, "the key becomes active on %s; the module's clock is %s", stamp(a.ACT), stamp(v.now))
	}
	return nil
}

func (v *vend) issued(a Attributes) error {
	if v.now.After(a.IUT) && !v.m.cfg.TestMode {
		return refuse(CodeKeyIssueExpired, "the key was issued until %s; the module's clock is %s; load a fresh key load file", stamp(a.IUT), stamp(v.now))
	}
	return nil
}

// expired reports whether the last day of a key has passed.
func expired(a Attributes, now time.Time) bool {
	return !a.EXP.IsZero() && !now.Before(a.EXP.AddDate(0, 0, 1))
}

// licence checks the transaction licence and takes one transaction from it.
func (v *vend) licence(tx Tx) (Licence, error) {
	l, err := licenceIn(tx)
	if err != nil {
		return Licence{}, err
	}
	if !l.Loaded {
		return l, nil
	}
	if l.Left == 0 {
		return l, refuse(CodeLicenceExhausted, "no transactions are left; load a transaction licence")
	}
	if !l.InhibitVend.IsZero() && v.now.After(l.InhibitVend) {
		return l, refuse(CodeVendInhibited, "vending is inhibited since %s; the module's clock is %s; load a transaction licence", stamp(l.InhibitVend), stamp(v.now))
	}
	if l.Left != Unlimited {
		l.Left--
	}
	return l, nil
}

// debit takes the decoded value from the key's unit or currency limit.
func (k *vendKey) debit(subclass int, amount uint32) (units int64, err error) {
	left, name := &k.limits.ulm, "unit"
	if subclass < 4 {
		units = int64(sts.Amount16(amount).Units())
	} else {
		left, name = &k.limits.clm, "currency"
		c := sts.Amount20(amount).Currency()
		var fits bool
		if units, fits = c.Int64(); !fits { // more than any limit, and reported as the most
			units = math.MaxInt64
			if c.Sign() < 0 {
				units = math.MinInt64
			}
		}
	}
	if *left == Unlimited {
		return units, nil
	}
	if *left == 0 || units > int64(*left) {
		return 0, refuse(CodeInsufficientCredit, "the key's %s limit has %d left and this token takes %d; load a fresh key load file", name, *left, max(units, 0))
	}
	if units > 0 { // a refund is not credited back
		*left -= uint32(units)
		k.debited = true
	}
	return units, nil
}

// seal encrypts the token.
func (v *vend) seal(k *vendKey, apdu sts.APDU) (Issued, error) {
	token, err := v.m.engine.Load().Encrypt(k.decoder, apdu)
	if err != nil {
		return Issued{}, fmt.Errorf("make the token: %w", err)
	}
	return k.issued(token), nil
}

func (k *vendKey) issued(token sts.Token) Issued {
	a := k.attr
	a.ULM, a.CLM = k.limits.ulm, k.limits.clm
	return Issued{Hex: token.Hex(), Dec: token.String(), Key: a}
}

// commit writes what the command used up.
func (v *vend) commit(tx Tx, k *vendKey, l Licence) error {
	if k.debited {
		if err := putLimits(tx, k.register, k.limits); err != nil {
			return err
		}
	}
	if l.Loaded && l.Left != Unlimited {
		return putLicence(tx, l)
	}
	return nil
}

// record audits a token. The token itself is not in the log, only its digest:
// enough to prove which one it was, not to use it.
func (v *vend) record(tx Tx, r Request, kind, pan string, k *vendKey, out Issued, more ...[2]string) error {
	if v.m.cfg.Audit == nil {
		return nil
	}
	var sgc [8]byte
	var text [2 * sha256.Size]byte
	digest := sha256.Sum256([]byte(out.Dec))
	hex.Encode(text[:], digest[:])
	buf := v.m.pairBuffer()
	d := append((*buf)[:0],
		[2]string{"ea", strconv.Itoa(int(v.ea))}, [2]string{"krn", strconv.Itoa(k.attr.KRN)},
		[2]string{"register", strconv.Itoa(k.register)}, [2]string{"sgc", string(appendDigits(sgc[:0], k.attr.SGC, 6))},
		[2]string{"tokenSha256", string(text[:])})
	d = append(d, more...)
	if r.Note[0] != "" {
		d = append(d, r.Note)
	}
	err := v.m.audit(tx, Event{Kind: kind, Actor: r.Actor, Subject: pan, Pairs: d})
	clear(d)
	*buf = d
	v.m.pairs.Put(buf)
	return err
}

// pairBuffer is for the pairs of one event: every vend makes one.
func (m *Module) pairBuffer() *[][2]string {
	if buf, ok := m.pairs.Get().(*[][2]string); ok {
		return buf
	}
	return new([][2]string)
}

func tidText(tid uint32) string {
	const hexDigits = "0123456789ABCDEF"
	var p [6]byte
	for i := range p {
		p[i] = hexDigits[tid>>(20-4*i)&15]
	}
	return string(p[:])
}

// rnd returns a token's random nibble.
func (m *Module) rnd() (uint8, error) {
	if m.cfg.TestMode {
		return 5, nil
	}
	var b [1]byte
	if _, err := io.ReadFull(m.cfg.Rand, b[:]); err != nil {
		return 0, fmt.Errorf("random number: %w", err)
	}
	return b[0] & 0xF, nil
}

func (m *Module) checkRegister(register int) error {
	if register < 1 || register > m.cfg.Registers {
		return refuse(CodePTVDRange, "register %d is not 1 to %d", register, m.cfg.Registers)
	}
	return nil
}
