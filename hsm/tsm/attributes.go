package tsm

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// KeyType is a vending key's type, numbered like the key types of IEC 62055-41.
type KeyType int

// The types a vending key can have.
const (
	VDDK KeyType = 1 // default; may not issue credit
	VUDK KeyType = 2 // unique
	VCDK KeyType = 3 // common; credit on magnetic cards only
)

func (k KeyType) String() string {
	switch k {
	case VDDK:
		return "VDDK"
	case VUDK:
		return "VUDK"
	case VCDK:
		return "VCDK"
	}
	return fmt.Sprintf("KT%d", int(k))
}

// Unlimited is the value of ULM and CLM that is never debited.
const Unlimited uint32 = 0xFFFFFFFF

// Attributes are what the module tells about a loaded vending key.
type Attributes struct {
	Register int
	KMC      string    // the KEK slot the key came through
	ACT      time.Time // unusable before
	BDT      int       // base date: 1993, 2014 or 2035
	CLM      uint32    // currency credit left, 10^-5 of the base currency
	CLU      int       // cluster
	DKG      int       // decoder-key generation algorithm: 2 or 4
	EXP      time.Time // the KMC issues the key until this day; zero if not given
	IUT      time.Time // unusable after
	KCV      string    // six hex digits
	KEN      int       // key expiry number, 255 never
	KRN      int       // 1 to 9
	KTC      KeyType
	SBM      uint16 // bit n allows credit subclass n
	SGC      int
	SGN      string
	ULM      uint32 // units left
	VND      bool   // can vend credit now
	Reason   string // why VND is false
}

const (
	dateTime = "20060102150405"
	dateOnly = "20060102"
)

// Pairs returns tag and value of every attribute, by tag, as SM?GA gives them.
func (a Attributes) Pairs() [][2]string {
	vnd := "0"
	if a.VND {
		vnd = "1"
	}
	out := [][2]string{
		{"ACT", a.ACT.UTC().Format(dateTime)},
		{"BDT", strconv.Itoa(a.BDT)},
		{"CLM", fmt.Sprintf("%08X", a.CLM)},
		{"CLU", strconv.Itoa(a.CLU)},
		{"DKG", fmt.Sprintf("%02d", a.DKG)},
	}
	if !a.EXP.IsZero() {
		out = append(out, [2]string{"EXP", a.EXP.UTC().Format(dateOnly)})
	}
	return append(out,
		[2]string{"IUT", a.IUT.UTC().Format(dateTime)},
		[2]string{"KCV", a.KCV},
		[2]string{"KEN", strconv.Itoa(a.KEN)},
		[2]string{"KRN", strconv.Itoa(a.KRN)},
		[2]string{"KTC", a.KTC.String()},
		[2]string{"SBM", fmt.Sprintf("%04X", a.SBM)},
		[2]string{"SGC", fmt.Sprintf("%06d", a.SGC)},
		[2]string{"SGN", a.SGN},
		[2]string{"ULM", fmt.Sprintf("%08X", a.ULM)},
		[2]string{"VND", vnd},
	)
}

// String returns the attributes as SM?GA answers them: tag and value joined
// by semicolons, in alphabetical order.
func (a Attributes) String() string {
	var b strings.Builder
	for i, p := range a.Pairs() {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(p[0])
		b.WriteString(p[1])
	}
	return b.String()
}
