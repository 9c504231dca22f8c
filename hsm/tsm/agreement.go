package tsm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

// approval is how a KMC key's approval is judged.
type approval int

const (
	approvalValid    approval = iota // a signature, where there is one and a root to judge it by, is valid
	approvalRequired                 // by its signature or by the root's list
	approvalIgnored
)

// KeyAgreement starts a key agreement with a KMC and returns the VKLOAD.REQ.1
// record: SM?KC. Earlier requests to the same KMC can no longer be answered. An
// approval signature that is present must be valid.
func (m *Module) KeyAgreement(ctx context.Context, publicKeyRecord string) (request string, err error) {
	return m.keyAgreement(ctx, publicKeyRecord, approvalValid)
}

// KeyAgreementApproved is KeyAgreement for a host that refuses unapproved keys.
func (m *Module) KeyAgreementApproved(ctx context.Context, publicKeyRecord string) (request string, err error) {
	return m.keyAgreement(ctx, publicKeyRecord, approvalRequired)
}

// KeyAgreementUnapproved is KeyAgreement for a host that overrides a bad
// approval signature.
func (m *Module) KeyAgreementUnapproved(ctx context.Context, publicKeyRecord string) (request string, err error) {
	return m.keyAgreement(ctx, publicKeyRecord, approvalIgnored)
}

func (m *Module) keyAgreement(ctx context.Context, record string, how approval) (request string, err error) {
	if err := m.tested(ctx); err != nil {
		return "", err
	}
	key, err := m.checkKMCKey(record, how)
	if err != nil {
		return "", err
	}
	err = m.update(ctx, func(tx Tx) error {
		s, err := slotOf(tx, key.KMC)
		if err != nil {
			return err
		}
		if s == nil {
			n, err := freeSlot(tx)
			if err != nil {
				return err
			}
			if n == 0 {
				return refuse(CodeKEKSlotNotFound, "all %d KEK slots are in use; delete one first", KEKSlots)
			}
			s = &slotRecord{number: n, KMC: key.KMC}
		}
		request, err = m.newRequest(ctx, tx, s, key)
		return err
	})
	return request, err
}

// checkKMCKey judges a KMC's public key in the documented order.
func (m *Module) checkKMCKey(record string, how approval) (keyload.KMCPublicKey, error) {
	const what = "Bad KMC PUBKEY: "
	key, err := keyload.ParseKMCPublicKey(record)
	var field *keyload.FieldError
	var rectype *keyload.TypeError
	switch {
	case errors.Is(err, keyload.ErrFormat):
		return key, refuse(CodeDFFormat, "KMC public key: %s", err)
	case errors.As(err, &field):
		return key, extended("SM.1.1: %sfield %s %s", what, field.Tag, field.Problem)
	case errors.As(err, &rectype):
		return key, extended("SM.1.1: %swrong record type %s", what, rectype.Got)
	case err != nil:
		return key, err
	}
	if key.Curve != keyload.CurveName {
		return key, extended("SM.1.2: %sunsupported curve %s", what, key.Curve)
	}
	if _, err := key.Key(); err != nil {
		return key, extended("SM.1.3: %sinvalid point", what)
	}
	trust := m.trust.Load()
	switch approved := trust.approves(key); {
	case how == approvalRequired && !approved && key.Signature == nil:
		return key, extended("SM.1.4: %sno approval signature", what)
	case how == approvalRequired && !approved,
		how == approvalValid && !approved && key.Signature != nil && trust.Root != nil:
		return key, extended("SM.1.4: %sapproval signature invalid", what)
	}
	now := m.Now()
	if now.Before(key.Activates) {
		return key, refuse(CodeKeyNotYetActive, "the public key of KMC %s becomes active on %s; the module's clock is %s",
			key.KMC, key.Activates.Format(time.DateOnly), stamp(now))
	}
	if !now.Before(key.ExpiresAt()) {
		return key, refuse(CodeKeyExpired, "the public key of KMC %s expired after %s; the module's clock is %s; ask the KMC for its new key",
			key.KMC, key.Expires.Format(time.DateOnly), stamp(now))
	}
	return key, nil
}

// newRequest makes the slot's new ephemeral key and request, in the slot's one write.
func (m *Module) newRequest(ctx context.Context, tx Tx, s *slotRecord, key keyload.KMCPublicKey) (string, error) {
	tvp, err := m.nextTVP(tx)
	if err != nil {
		return "", err
	}
	ephemeral, err := keyload.NewPrivateKey(m.cfg.Rand)
	if err != nil {
		return "", err
	}
	request := keyload.Request{
		ModuleID: m.cfg.ModuleID, SPN: staticKeyNumber, KMC: key.KMC, KPN: key.KPN, TVP: tvp,
		HardwareID: m.cfg.HardwareID, FirmwareID: m.cfg.FirmwareID, FirmwareHash: m.cfg.FirmwareHash,
		QEU: ephemeral.PublicKey().Bytes(),
	}.Text()
	clear(s.Ephemeral)
	s.KPN, s.Activates, s.Expires, s.Point = key.KPN, key.Activates, key.Expires, key.Point
	s.TVP, s.Request, s.Ephemeral = tvp, request, ephemeral.Bytes()
	if err := putSlot(tx, s); err != nil {
		return "", err
	}
	return request, m.audit(tx, Event{Kind: "kmc.request", Actor: actorOf(ctx), Subject: key.KMC, Detail: map[string]string{"tvp": tvp, "kpn": strconv.Itoa(key.KPN)}})
}

// nextTVP is the module's time, but later than every TVP before it. Where the
// clock has not moved on by a second the number does: waiting inside a
// transaction would stop vending.
func (m *Module) nextTVP(tx Tx) (string, error) {
	now := m.Now().UTC().Truncate(time.Second)
	raw, err := tx.Get([]byte(keyTVP))
	if err != nil {
		return "", err
	}
	if raw != nil {
		last, err := time.Parse(dateTime, string(raw))
		if err != nil {
			return "", fmt.Errorf("protected memory, %s: %w", keyTVP, err)
		}
		if !now.After(last) {
			now = last.Add(time.Second)
		}
	}
	tvp := now.Format(dateTime)
	return tvp, tx.Put([]byte(keyTVP), []byte(tvp))
}

// ProcessResponse takes the KMC's VKLOAD.RSP.1: SM?KR. The slot's keys are
// erased, the slot is LOADING.
func (m *Module) ProcessResponse(ctx context.Context, responseRecord string) (kmc string, announced int, err error) {
	if err := m.tested(ctx); err != nil {
		return "", 0, err
	}
	rec, parseErr := keyload.ParseRecord(responseRecord)
	if parseErr != nil {
		return "", 0, refuse(CodeDFFormat, "VKLOADRESP: %s", parseErr)
	}
	err = m.update(ctx, func(tx Tx) error {
		p, parseErr := keyload.ParseResponse(responseRecord)
		if errors.Is(parseErr, keyload.ErrFormat) {
			return refuse(CodeDFFormat, "VKLOADRESP: %s", parseErr)
		}
		s, err := slotOf(tx, rec.Get("KMC"))
		if err != nil {
			return err
		}
		if s != nil {
			defer s.wipe()
			if s.Request == "" {
				return refuse(CodeKMCKeyState, "there is no unanswered VKLOADREQ for KMC %s; generate one", s.KMC)
			}
		}
		session, count, err := m.checkResponse(p, parseErr, s)
		if err != nil {
			return err
		}
		defer session.Zeroise()
		erased, err := eraseSlotKeys(tx, s.number)
		if err != nil {
			return err
		}
		s.wipe()
		s.Request, s.Ephemeral = "", nil
		s.KID, s.KEK, s.KAK, s.Announced = p.KID, session.KEK, session.KAK, count
		if err := putSlot(tx, s); err != nil {
			return err
		}
		kmc, announced = s.KMC, count
		return m.audit(tx, Event{Kind: "kmc.response", Actor: actorOf(ctx), Subject: s.KMC, Detail: map[string]string{
			"tvp": s.TVP, "announced": strconv.Itoa(count), "registersErased": strconv.Itoa(erased)}})
	})
	m.forget(err)
	return kmc, announced, err
}

// checkResponse makes checks SM.3A and SM.3B in their order. The time comes
// before the key confirmation: after a newer request the confirmation fails
// too, and would hide the real cause.
func (m *Module) checkResponse(p keyload.Response, parseErr error, s *slotRecord) (keyload.SessionKeys, int, error) {
	var none keyload.SessionKeys
	bad := func(check, reason string, args ...any) (keyload.SessionKeys, int, error) {
		return none, 0, extended("SM.%s: Bad VKLOADRESP: %s", check, fmt.Sprintf(reason, args...))
	}
	var field *keyload.FieldError
	var rectype *keyload.TypeError
	switch {
	case errors.As(parseErr, &rectype):
		return bad("3A.1", "wrong record type %s", rectype.Got)
	case errors.As(parseErr, &field):
		return bad("3A.2", "field %s %s", field.Tag, field.Problem)
	case parseErr != nil:
		return none, 0, parseErr
	}
	if p.ModuleID != m.cfg.ModuleID {
		return bad("3B.1", "wrong module id %s; this module is %s", p.ModuleID, m.cfg.ModuleID)
	}
	if p.SPN != staticKeyNumber {
		return bad("3B.2", "wrong module key number %d", p.SPN)
	}
	if s == nil {
		return bad("3B.3", "unknown KMCID %s", p.KMC)
	}
	if p.KPN != s.KPN {
		return bad("3B.4", "wrong KMC key number %d; the request was made for key %d", p.KPN, s.KPN)
	}
	if p.Scheme != keyload.Scheme {
		return bad("3B.5", "unsupported scheme %s", p.Scheme)
	}
	qev, err := keyload.ParsePoint(p.QEV)
	if err != nil {
		return bad("3B.6", "invalid ephemeral point")
	}
	count, ok := p.Keys()
	if !ok {
		return bad("3B.7", "key count out of range")
	}
	if p.TVP != s.TVP {
		return bad("3B.8", "wrong timestamp (TVP) in VKLOADRESP_KMC; possible expired or out-of-order response")
	}
	request, err := s.request()
	if err != nil {
		return none, 0, err
	}
	ephemeral, err := s.ephemeral()
	if err != nil {
		return none, 0, err
	}
	peer, err := keyload.ParsePoint(s.Point)
	if err != nil {
		return none, 0, err
	}
	agreement := keyload.Agreement{Request: request, QEV: qev, Static: m.static(), Ephem: ephemeral, Peer: peer, PeerEphem: qev}
	session, err := agreement.Keys()
	if err != nil {
		return bad("3B.6", "invalid ephemeral point")
	}
	tag, err := agreement.ConfirmationTag(session.Confirm, p.Record())
	clear(session.Confirm)
	if err != nil {
		session.Zeroise()
		return none, 0, err
	}
	if !keyload.VerifyTag(p.MAC, tag) {
		session.Zeroise()
		return bad("3B.9", "key confirmation failed")
	}
	return session, count, nil
}

// stamp writes an instant for people.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// detail makes an audit entry's details from alternating names and values.
func detail(pairs ...any) map[string]string {
	out := make(map[string]string, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		out[fmt.Sprint(pairs[i])] = fmt.Sprint(pairs[i+1])
	}
	return out
}
