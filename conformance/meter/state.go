package meter

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// StateFormat is the first field of a meter's state file.
const StateFormat = "tesserae-meter/1"

// maxState bounds a state file; a full one is below 40 KiB.
const maxState = 256 << 10

// State is all that a meter remembers, and the content of its file. The file
// holds the decoder key and is readable by its owner only.
type State struct {
	Format string `json:"format"`

	DRN string `json:"drn"`
	PAN string `json:"pan"`
	EA  int    `json:"ea"`
	TCT int    `json:"tct"`

	// Key is the decoder key in hexadecimal: 16 digits for EA07, 32 for EA11.
	Key string `json:"key"`
	SGC string `json:"sgc"`
	KRN int    `json:"krn"`
	TI  int    `json:"ti"`
	KT  int    `json:"kt"`
	KEN int    `json:"ken"`
	// BaseDate is 1993, 2014, 2035, or 0 where a rollover left it unknown.
	BaseDate  int     `json:"baseDate"`
	STATables *Tables `json:"staTables,omitempty"`

	// Credit counts units of 0.1 kWh, 0.1 m3 and 0.1 min.
	Credit Units `json:"credit"`
	// Currency counts 0.00001 of the base currency and may be negative.
	Currency Money `json:"currency"`

	// Limits and rates are absent until a token sets them.
	MaximumPowerLimit   *uint32 `json:"maximumPowerLimit,omitempty"`
	PhaseUnbalanceLimit *uint32 `json:"phaseUnbalanceLimit,omitempty"`
	TariffRate          *uint16 `json:"tariffRate,omitempty"`
	WaterFactor         *uint16 `json:"waterFactor,omitempty"`

	Tamper bool `json:"tamper"`
	// Flags and Controls are what the extended token set (class 2, subclass 10) wrote.
	Flags    map[int]bool   `json:"flags,omitempty"`
	Controls map[int]uint16 `json:"controls,omitempty"`

	TIDs       []uint32 `json:"tids"`
	Pending    *Pending `json:"pending,omitempty"`
	KeyChanges int      `json:"keyChanges"`
}

// Tables are the STA substitution and permutation tables of an EA07 meter;
// absent means the standard's sample tables.
type Tables struct {
	Sub0 []int `json:"sub0"`
	Sub1 []int `json:"sub1"`
	Perm []int `json:"perm"`
}

// Units are the four credit registers.
type Units struct {
	Electricity uint64 `json:"electricity"`
	Water       uint64 `json:"water"`
	Gas         uint64 `json:"gas"`
	Time        uint64 `json:"time"`
}

func (u *Units) register(resource uint8) *uint64 {
	return [...]*uint64{&u.Electricity, &u.Water, &u.Gas, &u.Time}[resource&3]
}

// Money are the four currency registers, decimal and signed.
type Money struct {
	Electricity string `json:"electricity"`
	Water       string `json:"water"`
	Gas         string `json:"gas"`
	Time        string `json:"time"`
}

func (m *Money) register(resource uint8) *string {
	return [...]*string{&m.Electricity, &m.Water, &m.Gas, &m.Time}[resource&3]
}

// Pending is a key-change set that is not whole yet, by subclass.
type Pending struct {
	Last     time.Time `json:"last"`
	Sections []Section `json:"sections"`
}

// Section is what one key-change token carries; fields that its subclass does
// not have are zero.
type Section struct {
	SubClass int `json:"subclass"`
	// Key is 32 bits of the new key, 8 hexadecimal digits.
	Key string `json:"key"`
	// KENHalf is the high (subclass 3) or low (4) nibble of the new KEN.
	KENHalf int `json:"kenHalf"`
	KRN     int `json:"krn"`
	KT      int `json:"kt"`
	// Rollover is the RO bit, Three the 3KCT bit.
	Rollover bool `json:"rollover"`
	Three    bool `json:"three"`
	TI       int  `json:"ti"`
	// SGC is the low (subclass 8) or high (9) half of the supply group code, or
	// all of it in the third token of EA07.
	SGC uint32 `json:"sgc"`
}

// Marshal returns the one byte form of a state.
func (s State) Marshal() ([]byte, error) {
	p, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode meter state: %w", err)
	}
	return append(p, '\n'), nil
}

// ParseState reads a state and refuses bytes that Marshal would not write.
func ParseState(p []byte) (State, error) {
	var s State
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return State{}, errkind.Errorf(errkind.Invalid, "meter state: %w", err)
	}
	if err := s.validate(); err != nil {
		return State{}, errkind.Errorf(errkind.Invalid, "meter state: %w", err)
	}
	canonical, err := s.Marshal()
	if err != nil {
		return State{}, err
	}
	if !bytes.Equal(canonical, p) {
		return State{}, errkind.Errorf(errkind.Invalid, "meter state: not in the form the meter writes; was it edited by hand?")
	}
	return s, nil
}

// Load reads a meter from its state file.
func Load(path string) (*Meter, error) {
	p, err := atomicfile.Read(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.Errorf(errkind.NotFound, "no meter at %s; make one with 'meter init'", path)
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "read meter state: %w", err)
	}
	s, err := ParseState(p)
	if err != nil {
		return nil, err
	}
	return restore(s)
}

// Save writes the meter's state file, whole or not at all.
func (m *Meter) Save(path string) error {
	p, err := m.state.Marshal()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path, p, 0o600); err != nil {
		return fmt.Errorf("write meter state: %w", err)
	}
	return nil
}

func (s *State) validate() error {
	if s.Format != StateFormat {
		return fmt.Errorf("format %q, want %q", s.Format, StateFormat)
	}
	pan, drn, err := parsePAN(s.PAN)
	if err != nil {
		return err
	}
	if pan != s.PAN || drn != s.DRN {
		return fmt.Errorf("drn %q does not belong to pan %q", s.DRN, s.PAN)
	}
	if err := s.attributes(); err != nil {
		return err
	}
	if len(s.TIDs) != MemorySize || !slices.IsSorted(s.TIDs) || s.TIDs[MemorySize-1] > maxTID {
		return fmt.Errorf("tids must be %d ascending numbers of 24 bits", MemorySize)
	}
	for r := range uint8(4) {
		if *s.Credit.register(r) > MaxCredit {
			return fmt.Errorf("credit register %d is above its maximum", r)
		}
		text := *s.Currency.register(r)
		n, ok := new(big.Int).SetString(text, 10)
		if !ok || len(text) > 60 || n.String() != text || n.CmpAbs(maxCurrency()) > 0 {
			return fmt.Errorf("currency register %d is not a decimal number in range", r)
		}
	}
	return s.settings()
}

func (s *State) attributes() error {
	switch {
	case s.EA != 7 && s.EA != 11:
		return fmt.Errorf("ea %d is neither 7 nor 11", s.EA)
	case s.TCT < 1 || s.TCT > 99:
		return fmt.Errorf("tct %d is outside 1 to 99", s.TCT)
	case s.KT < 0 || s.KT > 3:
		return fmt.Errorf("kt %d is outside 0 to 3", s.KT)
	case s.KT == 3 && s.TCT != 1:
		return errors.New("a common key (kt 3) needs token carrier type 1")
	case s.KT == 0 && s.KRN != 0, s.KT != 0 && (s.KRN < 1 || s.KRN > 9):
		return fmt.Errorf("krn %d is not possible for kt %d", s.KRN, s.KT)
	case s.TI < 0 || s.TI > 99:
		return fmt.Errorf("ti %d is outside 0 to 99", s.TI)
	case s.KEN < 0 || s.KEN > 255:
		return fmt.Errorf("ken %d is outside 0 to 255", s.KEN)
	case s.BaseDate != 0 && s.BaseDate != 1993 && s.BaseDate != 2014 && s.BaseDate != 2035:
		return fmt.Errorf("base date %d is none of 1993, 2014, 2035", s.BaseDate)
	case len(s.SGC) != 6 || !digits(s.SGC):
		return fmt.Errorf("sgc %q is not six digits", s.SGC)
	case s.STATables != nil && s.EA != 7:
		return errors.New("STA tables belong to EA07 only")
	}
	key, err := hex.DecodeString(s.Key)
	if err != nil || len(key) != keyLength(s.EA) || s.Key != strings.ToUpper(s.Key) {
		return fmt.Errorf("the decoder key of EA%02d has %d hexadecimal digits, upper case", s.EA, 2*keyLength(s.EA))
	}
	return nil
}

func (s *State) settings() error {
	for i := range s.Flags {
		if i < 0 || i > maxFlag {
			return fmt.Errorf("flag %d is outside 0 to %d", i, maxFlag)
		}
	}
	for i, v := range s.Controls {
		if i < 0 || i >= flagIndex || v > maxControl {
			return fmt.Errorf("control register %d is out of range", i)
		}
	}
	if s.KeyChanges < 0 {
		return errors.New("keyChanges is negative")
	}
	if s.Pending == nil {
		return nil
	}
	last := -1
	for _, sec := range s.Pending.Sections {
		if sec.SubClass <= last {
			return errors.New("pending sections are not in ascending order")
		}
		last = sec.SubClass
		if err := sec.validate(s.EA); err != nil {
			return err
		}
	}
	if last < 0 {
		return errors.New("a pending set has no section")
	}
	return nil
}

func (s State) clone() State {
	s.TIDs = slices.Clone(s.TIDs)
	s.Flags, s.Controls = cloneMap(s.Flags), cloneMap(s.Controls)
	if s.Pending != nil {
		s.Pending = &Pending{Last: s.Pending.Last, Sections: slices.Clone(s.Pending.Sections)}
	}
	return s
}

func cloneMap[V any](m map[int]V) map[int]V {
	if m == nil {
		return nil
	}
	c := make(map[int]V, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}
