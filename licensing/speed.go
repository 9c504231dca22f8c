package licensing

import (
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Rating is a speed rating.
type Rating int

const (
	// Base is HSMSpeed0, and what a unit without any speed bit has.
	Base Rating = iota
	// Mid is HSMSpeed1.
	Mid
	// High is HSMSpeed2.
	High
)

// Rating returns the highest speed rating among the features.
func (f Features) Rating() Rating {
	switch {
	case f&HSMSpeed2 != 0:
		return High
	case f&HSMSpeed1 != 0:
		return Mid
	}
	return Base
}

// Bit returns the rating's feature.
func (r Rating) Bit() Features {
	switch r {
	case High:
		return HSMSpeed2
	case Mid:
		return HSMSpeed1
	}
	return HSMSpeed0
}

// String returns the feature's name.
func (r Rating) String() string { return r.Bit().String() }

// Capacity is how many tokens a second a unit of this rating is rated for.
func (r Rating) Capacity() int {
	switch r {
	case High:
		return 20_000
	case Mid:
		return 2_000
	}
	return 200
}

// weight is a VCM's relative part of its unit's capacity.
func (r Rating) weight() int { return 1 << r }

// Speed is a VCM's part of a unit's capacity in tokens a second: what it gets
// however busy the others are, and what it cannot exceed.
type Speed struct {
	Guaranteed int
	Ceiling    int
}

// ShareOf returns the part of a unit with these features that a VCM with
// features vcm gets when active VCMs may run at once. The guarantees of that many
// VCMs never add up to more than the capacity.
func (unit Features) ShareOf(vcm Features, active int) Speed {
	r := min(vcm.Rating(), unit.Rating())
	whole, top := unit.Rating().Capacity(), unit.Rating().weight()
	ceiling := whole * r.weight() / top
	return Speed{Guaranteed: ceiling / max(active, 1), Ceiling: ceiling}
}

// Default returns what a VCM gets when its creation names no features: those
// of the unit.
func (unit Features) Default() Features { return unit.convert(unit.normal()) }

func (unit Features) normal() Features {
	return unit&^SpeedBits | unit.Rating().Bit()
}

// convert applies the rule of mid-speed units: HSMSpeed1 becomes HSMSpeed0.
func (unit Features) convert(vcm Features) Features {
	if unit.Rating() == Mid && vcm&HSMSpeed1 != 0 {
		return vcm&^HSMSpeed1 | HSMSpeed0
	}
	return vcm
}

// Admit checks that a VCM with features want may exist on the unit and returns
// the features it will have. Features must be a subset of the unit's; the
// speed rating must not be higher. An error names every feature whose licence is
// missing.
func (unit Features) Admit(want Features) (Features, error) {
	if s := want & SpeedBits; s&(s-1) != 0 {
		return 0, errkind.Errorf(errkind.Invalid, "features name more than one speed rating (%s); give one", s)
	}
	var missing []string
	if f := want &^ (unit | BuiltIn | SpeedBits); f != 0 {
		missing = append(missing, strings.ReplaceAll(f.String(), "|", ", ")+" (licence type "+string(Feature)+")")
	}
	if r := want.Rating(); r > unit.Rating() {
		missing = append(missing, r.String()+" (licence type "+string(SpeedUpgrade)+")")
	}
	if missing != nil {
		return 0, errkind.Errorf(errkind.Limit, "the unit has no licence for %s; ask the maker for one and apply it with 'hsmadmin fet'",
			strings.Join(missing, ", "))
	}
	return unit.convert(want), nil
}
