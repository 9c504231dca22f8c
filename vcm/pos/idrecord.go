package pos

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// kenUnknown stands for a key expiry number that a record does not carry.
const kenUnknown = 255

// parseDOE reads a card's YYMM; empty and 0000 are no expiry.
func parseDOE(name, yymm string) (sts.DOE, error) {
	if yymm == "" || yymm == "0000" {
		return sts.DOE{}, nil
	}
	n, err := strconv.ParseUint(yymm, 10, 16)
	if err != nil || len(yymm) != 4 || n%100 < 1 || n%100 > 12 {
		return sts.DOE{}, outOfRange(name, yymm, "YYMM, or 0000 for no expiry")
	}
	return sts.DOE{Year: uint8(n / 100), Month: uint8(n % 100)}, nil
}

// ParseIDRecord reads an IDRecord, or a Record2 with or without sentinels. The
// key expiry number is not in the record; it is answered as 255, never.
func (s *Service) ParseIDRecord(text string) (MeterConfig, error) {
	return parseIDRecord("idRecord", text, s.now())
}

func parseIDRecord(name, text string, now time.Time) (MeterConfig, error) {
	bad := func(reason string) (MeterConfig, error) {
		return MeterConfig{}, Faultf(BadIDRecord, name, text, reason)
	}
	parse := sts.ParseIDRecord
	if strings.ContainsAny(text, ";=?") {
		if strings.HasPrefix(text, ";") != strings.HasSuffix(text, "?") {
			return bad("one of the sentinels is missing")
		}
		parse = sts.ParseRecord2
		// Some encoders end the date of expiry with one more divider.
		if _, rest, ok := strings.Cut(text, "="); ok && len(strings.TrimSuffix(rest, "?")) == 18 && rest[4] == '=' {
			text = strings.Replace(text, rest, rest[:4]+rest[5:], 1)
		}
	}
	rec, err := parse(text)
	var e *sts.Error
	switch {
	case err == nil:
	case errors.Is(err, sts.ErrCheckDigit):
		return MeterConfig{}, Faultf(PANCheckDigit, name, text)
	case errors.As(err, &e) && e.Field == "IIN": // digits throughout, but no meter's number
		return MeterConfig{}, Faultf(BadPAN, name, text, e.Field+": "+e.Detail)
	case errors.As(err, &e):
		return bad(e.Field + ": " + e.Detail)
	default:
		return bad(err.Error())
	}
	if !rec.EA.Valid() {
		return bad("EA: expected 7 or 11")
	}
	if rec.DOE.Expired(now) {
		return MeterConfig{}, Faultf(IDRecordExpired, rec.DOE)
	}
	return MeterConfig{
		DRN: rec.PAN.DRN(), DOE: rec.DOE.String(), TCT: int(rec.TCT), EA: int(rec.EA), SGC: int(rec.SGC),
		TI: int(rec.TI), KRN: int(rec.KRN), KEN: kenUnknown, AllowKRNUpdate: true, AllowKENUpdate: true,
	}, nil
}
