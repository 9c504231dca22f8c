// Package licensing says what a unit and its VCMs are entitled to: features as
// names and as a 32-bit word, speed ratings, licence files signed by the maker,
// and the limits that follow from them. Everything here is a pure function of
// its arguments.
//
// # Features
//
// The low bits are the seeds' (FTO, SEE, curves, speed...). The security
// module's own features use bits that are free there:
//
//	01000000  STSVending            credit, management and key change tokens
//	02000000  STSCurrencyTokens     currency credit (subclasses 4 to 7)
//	04000000  STSEA11               encryption algorithm 11 (MISTY1) and DKGA04
//	08000000  STSProprietaryTokens  proprietary token classes
//	10000000  STSManufacturing      meter manufacturing: DITKs
//
// Bits without a name are reserved: they are dropped on input.
package licensing

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Features is a set of features as a 32-bit word.
type Features uint32

// The features. Their values travel in requests and licences: never change one.
const (
	ForeignTokenOpen     Features = 0x00000001
	RemoteShare          Features = 0x00000002
	GeneralSEE           Features = 0x00000004
	ExportCGEA           Features = 0x00000008
	KISAAlgorithms       Features = 0x00000010
	StandardKM           Features = 0x00000020
	EllipticCurve        Features = 0x00000200
	HSMSpeed0            Features = 0x00000400
	ECCMQV               Features = 0x00000800
	AcceleratedECC       Features = 0x00001000
	HSMSpeed1            Features = 0x00004000
	HSMSpeed2            Features = 0x00008000
	FastRandom           Features = 0x00100000
	STSVending           Features = 0x01000000
	STSCurrencyTokens    Features = 0x02000000
	STSEA11              Features = 0x04000000
	STSProprietaryTokens Features = 0x08000000
	STSManufacturing     Features = 0x10000000
)

const (
	// BuiltIn features are always available, whatever a licence or a property says.
	BuiltIn = StandardKM | EllipticCurve | ECCMQV | AcceleratedECC
	// SpeedBits are the three speed ratings.
	SpeedBits = HSMSpeed0 | HSMSpeed1 | HSMSpeed2
	// STS are the security module's features.
	STS = STSVending | STSCurrencyTokens | STSEA11 | STSProprietaryTokens | STSManufacturing
)

type feature struct {
	bit     Features
	name    string
	meaning string
}

// table is in the order of bits, which is the order of output.
func table() []feature {
	return []feature{
		{ForeignTokenOpen, "ForeignTokenOpen", "FTO commands available"},
		{RemoteShare, "RemoteShare", "ReceiveShare command available"},
		{GeneralSEE, "GeneralSEE", "any SEE machine may be loaded (no effect on this unit)"},
		{ExportCGEA, "ExportCGEA", "CodeSafe activation (no effect on this unit)"},
		{KISAAlgorithms, "KISAAlgorithms", "Korean algorithms available"},
		{StandardKM, "StandardKM", "standard key management (built in)"},
		{EllipticCurve, "EllipticCurve", "ECC mechanisms (built in)"},
		{HSMSpeed0, "HSMSpeed0", "base speed"},
		{ECCMQV, "ECCMQV", "ECC-MQV key agreement (built in)"},
		{AcceleratedECC, "AcceleratedECC", "accelerated ECC point multiplication (built in)"},
		{HSMSpeed1, "HSMSpeed1", "mid speed"},
		{HSMSpeed2, "HSMSpeed2", "high speed"},
		{FastRandom, "FastRandom", "faster, not certified random source for ECDSA"},
		{STSVending, "STSVending", "credit, management and key change tokens"},
		{STSCurrencyTokens, "STSCurrencyTokens", "currency credit tokens"},
		{STSEA11, "STSEA11", "encryption algorithm 11 and DKGA04"},
		{STSProprietaryTokens, "STSProprietaryTokens", "proprietary token classes"},
		{STSManufacturing, "STSManufacturing", "meter manufacturing"},
	}
}

// spellings maps what is accepted besides the names of the table. PostQuantum
// is built in and has no bit.
func spellings() map[string]Features {
	return map[string]Features{
		"ForeignTokenpen": ForeignTokenOpen,
		"KISAAgorithms":   KISAAlgorithms,
		"Elliptic curve":  EllipticCurve,
		"PostQuantum":     0,
	}
}

// Names lists every feature's name in the order of bits.
func Names() []string {
	var out []string
	for _, f := range table() {
		out = append(out, f.name)
	}
	return out
}

// Meaning returns what a single feature stands for, "" for none.
func (f Features) Meaning() string {
	for _, row := range table() {
		if row.bit == f {
			return row.meaning
		}
	}
	return ""
}

// Known is every bit that has a name.
func Known() Features {
	var all Features
	for _, f := range table() {
		all |= f.bit
	}
	return all
}

// ParseFeatures reads names separated by '|', or one hexadecimal word. The
// empty text is no feature. Reserved bits of a word have no effect and are dropped.
func ParseFeatures(text string) (Features, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, nil
	}
	if w, ok := parseWord(text); ok {
		return w & Known(), nil
	}
	var f Features
	for name := range strings.SplitSeq(text, "|") {
		bit, err := parseName(strings.TrimSpace(name))
		if err != nil {
			return 0, err
		}
		f |= bit
	}
	return f, nil
}

func parseWord(text string) (Features, bool) {
	digits := strings.TrimPrefix(strings.TrimPrefix(text, "0x"), "0X")
	w, err := strconv.ParseUint(digits, 16, 32)
	return Features(w), err == nil && !strings.ContainsAny(digits, "+_")
}

func parseName(name string) (Features, error) {
	for _, f := range table() {
		if strings.EqualFold(f.name, name) {
			return f.bit, nil
		}
	}
	for s, bit := range spellings() {
		if strings.EqualFold(s, name) {
			return bit, nil
		}
	}
	if strings.EqualFold(name, "HSMSpeed3") {
		return 0, errkind.Errorf(errkind.Invalid, "feature HSMSpeed3 is never set on a unit; use HSMSpeed0, HSMSpeed1 or HSMSpeed2")
	}
	return 0, errkind.Errorf(errkind.Invalid, "unknown feature %q; known are %s, or give one hexadecimal word", name, strings.Join(Names(), ", "))
}

// String returns the names in the order of bits, separated by '|'.
func (f Features) String() string {
	var names []string
	for _, row := range table() {
		if f&row.bit != 0 {
			names = append(names, row.name)
		}
	}
	return strings.Join(names, "|")
}

// Hex returns the word as 8 hexadecimal digits.
func (f Features) Hex() string { return fmt.Sprintf("%08X", uint32(f)) }

// Has reports whether every feature of want is available; built-in ones always are.
func (f Features) Has(want Features) bool { return want&^(f|BuiltIn) == 0 }
