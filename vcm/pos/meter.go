package pos

import (
	"errors"
	"strconv"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// meter is a checked MeterConfig.
type meter struct {
	MeterConfig
	pan     sts.PAN
	panText string
	doe     sts.DOE
}

// inRange is outOfRange unless low <= got <= high.
func inRange(name string, got, low, high int) error {
	if got < low || got > high {
		return outOfRange(name, got, strconv.Itoa(low)+".."+strconv.Itoa(high))
	}
	return nil
}

// check validates every field in the interface's order. Whether keys exist is
// not its business.
func (c MeterConfig) check(now time.Time) (meter, error) {
	pan, err := parsePAN("drn", c.DRN)
	if err != nil {
		return meter{}, err
	}
	if !sts.EA(c.EA).Valid() || c.EA < 0 || c.EA > 99 {
		return meter{}, outOfRange("ea", c.EA, "7 or 11")
	}
	if err := errors.Join(
		inRange("tct", c.TCT, 0, 99),
		inRange("sgc", c.SGC, 0, 999999),
		inRange("krn", c.KRN, 1, 9),
		inRange("ti", c.TI, 0, 99),
	); err != nil {
		return meter{}, first(err)
	}
	if c.New != nil {
		if err := c.New.check(); err != nil {
			return meter{}, err
		}
	}
	if err := inRange("ken", c.KEN, 0, 255); err != nil {
		return meter{}, err
	}
	doe, err := parseDOE("doe", c.DOE)
	if err != nil {
		return meter{}, err
	}
	if doe.Expired(now) {
		return meter{}, Faultf(IDRecordExpired, doe)
	}
	return meter{c, pan, pan.String(), doe}, nil
}

func (a Amendment) check() error {
	return first(errors.Join(
		inRange("toSgc", a.SGC, 0, 999999),
		inRange("toKrn", a.KRN, 1, 9),
		inRange("toTi", a.TI, 0, 99),
	))
}

// first returns the first of joined errors: an answer names one parameter.
func first(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()[0]
	}
	return err
}

func parsePAN(name, text string) (sts.PAN, error) {
	pan, err := sts.ParsePAN(text)
	if err == nil {
		return pan, nil
	}
	if errors.Is(err, sts.ErrCheckDigit) {
		return sts.PAN{}, Faultf(PANCheckDigit, name, text)
	}
	reason := "expected an 11- or 13-digit DRN or an 18-digit PAN"
	var e *sts.Error
	if errors.As(err, &e) {
		reason = e.Detail
	}
	return sts.PAN{}, Faultf(BadPAN, name, text, reason)
}
