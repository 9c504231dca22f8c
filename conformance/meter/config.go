package meter

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Config is what the factory puts into a meter.
type Config struct {
	// DRN is the meter's number of 11 or 13 digits, or its PAN of 18.
	DRN string
	// EA is 7 (STA) or 11 (MISTY1), TCT the token carrier type (2 is numeric).
	EA, TCT int
	SGC     uint32
	// KRN is 1 to 9, and 0 for an initialisation key (KT 0), which has none.
	KRN, TI, KT, KEN int
	// BaseDate is 1993, 2014 or 2035.
	BaseDate int
	// DecoderKey is 8 bytes for EA07 and 16 for EA11; with KT 0 it is the DITK.
	DecoderKey []byte
	// STATables replace the standard's sample tables in an EA07 meter.
	STATables *Tables
	// Manufactured fills the TID memory; before the base date, or zero, it counts
	// as the base date itself.
	Manufactured time.Time
}

// New makes a meter as it leaves the factory.
func New(c Config) (*Meter, error) {
	pan, drn, err := parsePAN(c.DRN)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "meter: %w", err)
	}
	if c.SGC > 999999 {
		return nil, errkind.Errorf(errkind.Invalid, "meter: sgc %d is outside 0 to 999999", c.SGC)
	}
	base, ok := baseTime(c.BaseDate)
	if !ok {
		return nil, errkind.Errorf(errkind.Invalid, "meter: base date %d is none of 1993, 2014, 2035", c.BaseDate)
	}
	made := max(0, c.Manufactured.Sub(base)/time.Minute)
	if made > maxTID {
		return nil, errkind.Errorf(errkind.Invalid, "meter: made at %s, which no TID of base date %d reaches", c.Manufactured.Format(time.RFC3339), c.BaseDate)
	}
	s := State{
		Format: StateFormat, DRN: drn, PAN: pan, EA: c.EA, TCT: c.TCT,
		Key: strings.ToUpper(hex.EncodeToString(c.DecoderKey)), SGC: fmt.Sprintf("%06d", c.SGC),
		KRN: c.KRN, TI: c.TI, KT: c.KT, KEN: c.KEN, BaseDate: c.BaseDate, STATables: c.STATables,
		Currency: Money{"0", "0", "0", "0"}, TIDs: filled(uint32(made)),
	}
	if err := s.validate(); err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "meter: %w", err)
	}
	return restore(s)
}

func baseTime(year int) (time.Time, bool) {
	return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), year == 1993 || year == 2014 || year == 2035
}

func keyLength(ea int) int {
	if ea == 7 {
		return 8
	}
	return 16
}

// parsePAN accepts a DRN of 11 or 13 digits or a PAN of 18 and returns both forms.
func parsePAN(number string) (pan, drn string, err error) {
	if !digits(number) {
		return "", "", fmt.Errorf("meter number %q is not decimal", number)
	}
	switch len(number) {
	case 11:
		pan, drn = withCheckDigit("600727"+number), number
	case 13:
		pan, drn = withCheckDigit("0000"+number), number
	case 18:
		pan = number
		switch {
		case strings.HasPrefix(number, "600727"):
			drn = number[6:17]
		case strings.HasPrefix(number, "0000"):
			drn = number[4:17]
		default:
			return "", "", fmt.Errorf("meter number %q begins neither with 600727 nor with 0000", number)
		}
	default:
		return "", "", fmt.Errorf("meter number %q has neither 11, 13 nor 18 digits", number)
	}
	if withCheckDigit(drn[:len(drn)-1]) != drn || withCheckDigit(pan[:len(pan)-1]) != pan {
		return "", "", fmt.Errorf("meter number %q has a wrong check digit", number)
	}
	return pan, drn, nil
}

// withCheckDigit appends the Luhn digit.
func withCheckDigit(body string) string {
	sum := 0
	for i := range len(body) {
		d := int(body[len(body)-1-i] - '0')
		if i%2 == 0 {
			d = d*2/10 + d*2%10
		}
		sum += d
	}
	return body + string(rune('0'+(10-sum%10)%10))
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
