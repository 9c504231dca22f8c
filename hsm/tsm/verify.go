package tsm

import (
	"errors"
	"math"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// Verify decrypts a token and says what it is: SM?VT. A token that is not valid
// is no error; Verified.Result says what is wrong with it.
func (m *Module) Verify(tx Tx, in VerifyInput) (Verified, error) {
	v, err := m.begin(CommandVT)
	if err != nil {
		return Verified{}, err
	}
	token, err := parseToken(in.Token)
	if err != nil {
		return Verified{}, err
	}
	if err := m.checkRegister(in.Register); err != nil {
		return Verified{}, err
	}
	if err := v.meter(in.PAN, in.TI, in.EA, 0); err != nil {
		return Verified{}, err
	}
	k, err := v.anyKey(tx, in.Register, in.TI)
	if err != nil {
		return Verified{}, err
	}
	apdu, err := m.engine.Load().Decrypt(k.decoder, token)
	switch {
	case errors.Is(err, sts.ErrCRC):
		return Verified{Result: CodeTokenCRC, Key: k.attr}, nil
	case errors.Is(err, sts.ErrDDTKCredit):
		return Verified{Result: CodeDDTKCredit, Key: k.attr}, nil
	case err != nil:
		return Verified{}, refuse(CodeKeyParam, "the token is of no defined class: %s", err)
	}
	message, err := apdu.Message(v.ea)
	if err != nil {
		return Verified{}, refuse(CodeKeyParam, "the token is of no defined kind: %s", err)
	}
	out := Verified{Result: CodeOK, Class: int(apdu.Class()), SubClass: int(apdu.SubClass()), Key: k.attr}
	hasTID := out.read(message)
	if hasTID && v.issued(k.attr) != nil {
		return Verified{Result: CodeKeyIssueExpired, Key: k.attr}, nil
	}
	if hasTID && sts.KEN(k.attr.KEN).Expired(sts.TID(out.TID)) {
		return Verified{Result: CodeKeyExpired, Key: k.attr}, nil
	}
	return out, nil
}

// read takes amount and TID from a message and reports whether it has them.
func (o *Verified) read(message sts.Message) bool {
	switch t := message.(type) {
	case sts.Credit:
		o.Amount, o.TID, o.Units = uint32(t.Amount), uint32(t.TID), int64(t.Amount.Units())
	case sts.CurrencyCredit:
		o.Amount, o.TID = uint32(t.Amount), uint32(t.TID)
		units, fits := t.Amount.Currency().Int64()
		if !fits {
			units = math.MaxInt64
			if t.Amount.Currency().Sign() < 0 {
				units = math.MinInt64
			}
		}
		o.Units = units
	case sts.Management:
		o.Amount, o.TID = uint32(t.Value), uint32(t.TID)
	case sts.KeySection:
		o.KeyChange = true
		return false
	default:
		return false
	}
	return true
}

func parseToken(s string) (sts.Token, error) {
	parse := sts.ParseToken
	if len(s) == 17 {
		parse = sts.ParseTokenHex
	}
	t, err := parse(s)
	if err != nil {
		return sts.Token{}, refuse(CodePTVDEncoding, "the token is neither 20 decimal nor 17 hex digits: %s", err)
	}
	return t, nil
}
