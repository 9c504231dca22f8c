package pos

import (
	"context"
	"errors"
	"strconv"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Verify says what a token is under a meter's configuration. It changes
// nothing and remembers nothing.
func (s *Service) Verify(ctx context.Context, in Verify) (Verification, error) {
	m, err := in.Meter.check(s.now())
	if err != nil {
		return Verification{}, err
	}
	token, err := sts.ParseToken(in.TokenDec)
	if err != nil {
		return Verification{}, outOfRange("tokenDec", in.TokenDec, "20 decimal digits of a token")
	}
	switch token.Class() {
	case sts.ClassMeterTest:
		return verifyMeterTest(token)
	case sts.ClassReserved:
		return Verification{}, outOfRange("tokenDec", in.TokenDec, "a token of class 0, 1 or 2")
	}
	var got tsm.Verified
	err = s.store.View(ctx, func(tx *store.Tx) error {
		sm := tx.Bucket(s.moduleBucket)
		keys, err := s.module.Find(sm, m.SGC, m.KRN)
		if err != nil {
			return err
		}
		key := pick(keys, m.KRN)
		if key.Register == 0 {
			return &missingKey{m.SGC, m.KRN}
		}
		got, err = s.module.Verify(sm, tsm.VerifyInput{Register: key.Register, PAN: m.panText, TI: m.TI, EA: m.EA, Token: in.TokenDec})
		return err
	})
	if err != nil {
		return Verification{}, s.explain(ctx, err)
	}
	return s.verification(&m, token, got)
}

func (s *Service) verification(m *meter, token sts.Token, got tsm.Verified) (Verification, error) {
	switch got.Result {
	case tsm.CodeOK:
	case tsm.CodeTokenCRC:
		return Verification{Result: VerifyCRC}, nil
	case tsm.CodeDDTKCredit:
		return Verification{Result: VerifyDDTKCredit}, nil
	case tsm.CodeKeyExpired:
		return Verification{Result: VerifyKeyExpired}, nil
	default:
		return Verification{}, FaultOf(&tsm.Error{Code: got.Result, Text: "the token cannot be verified"})
	}
	k, err := kindOf(got.Class, got.SubClass)
	if err != nil {
		return Verification{}, outOfRange("tokenDec", token, "a token other than a key change")
	}
	t := s.token(m, got.Key, m.TI, got.Class, got.SubClass, k, got.Amount)
	t.TID, t.ReservedTID = int(got.TID), reservedMinute(int64(got.TID))
	t.Dec, t.Hex = token.String(), token.Hex()
	return Verification{Result: VerifyOk, Token: &t}, nil
}

// Generic meters, which class 1 tokens are for.
const (
	genericSerial   = "00000000"
	meterTestText   = "InitMeterTest"
	twoDigitMfr     = "00"
	fourDigitMfr    = "0000"
	twoDigitControl = 36
	wideControl     = 28
)

// wide reports the form with a 28-bit control field and four digits of
// manufacturer.
func wide(subclass int) bool { return subclass == 1 || subclass >= 6 && subclass <= 10 }

// MeterTest makes a class 1 token. It is the same for every meter, not
// encrypted, and nothing about it is remembered.
func (s *Service) MeterTest(in MeterTest) (MeterTestToken, error) {
	if in.Subclass < 0 || in.Subclass > 15 || in.Subclass >= 2 && in.Subclass <= 5 {
		return MeterTestToken{}, outOfRange("subclass", in.Subclass, "0, 1 or 6..15")
	}
	bits := twoDigitControl
	if wide(in.Subclass) {
		bits = wideControl
	}
	if in.Control < 0 || in.Control>>bits != 0 {
		return MeterTestToken{}, outOfRange("control", in.Control, "0.."+strconv.FormatInt(1<<bits-1, 10))
	}
	low, high := 0, 0
	switch {
	case in.Subclass >= 11:
		high = 99
	case in.Subclass >= 6:
		low, high = 100, 9999
	}
	if in.Manufacturer < low || in.Manufacturer > high {
		expected := strconv.Itoa(low)
		if high > low {
			expected += ".." + strconv.Itoa(high)
		}
		return MeterTestToken{}, outOfRange("mfrcode", in.Manufacturer, expected)
	}
	message := sts.MeterTest{SubClass: sts.SubClass(in.Subclass), Control: uint64(in.Control), Manufacturer: uint16(in.Manufacturer)}
	token, err := sts.NewEngine(nil, sts.TableDriven).Encode(sts.DecoderKey{}, message)
	if err != nil {
		return MeterTestToken{}, errkind.Errorf(errkind.Internal, "meter test token: %w", err)
	}
	return meterTestToken(message, token)
}

func meterTestToken(m sts.MeterTest, token sts.Token) (MeterTestToken, error) {
	code := twoDigitMfr
	if m.SubClass >= 6 && wide(int(m.SubClass)) {
		code = fourDigitMfr
	}
	pan, err := sts.NewPAN(code, genericSerial)
	if err != nil {
		return MeterTestToken{}, errkind.Errorf(errkind.Internal, "generic meter: %w", err)
	}
	return MeterTestToken{
		DRN: pan.DRN(), PAN: pan.String(), Class: classMeterTest, Subclass: int(m.SubClass), Control: int64(m.Control),
		Manufacturer: int(m.Manufacturer), Description: meterTestText, Dec: token.String(), Hex: token.Hex(),
	}, nil
}

// verifyMeterTest reads a class 1 token, which needs no key.
func verifyMeterTest(token sts.Token) (Verification, error) {
	message, err := sts.NewEngine(nil, sts.TableDriven).Decode(sts.DecoderKey{}, token)
	if errors.Is(err, sts.ErrCRC) {
		return Verification{Result: VerifyCRC}, nil
	}
	m, ok := message.(sts.MeterTest)
	if err != nil || !ok {
		return Verification{}, outOfRange("tokenDec", token, "a meter test token of a defined subclass")
	}
	t, err := meterTestToken(m, token)
	if err != nil {
		return Verification{}, err
	}
	return Verification{Result: VerifyOk, Test: &t}, nil
}
