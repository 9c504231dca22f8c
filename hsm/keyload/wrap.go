package keyload

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// TypeWrappedKey is the type of a vending key's record.
const TypeWrappedKey = "VK.WRAP.1"

// Unlimited is a ULM or CLM that is never debited.
const Unlimited uint32 = 0xFFFFFFFF

// KeyAttributes are the attributes that a KMC gives a vending key.
type KeyAttributes struct {
	ACT time.Time // unusable before
	BDT int       // base date: 1993, 2014 or 2035
	CLM uint32    // currency limit for one module, 10^-5 of the base currency
	CLU int       // cluster: 0; other values are reserved and kept apart
	DKG int       // decoder-key generation algorithm: 1, 2 or 4
	EXP time.Time // the KMC issues the key until this day; zero if not given
	IUT time.Time // unusable after
	KCV string    // key check value, six hex digits
	KEN int       // key expiry number, 0 to 255
	KRN int       // key revision number, 1 to 9
	KTC string    // VDDK, VUDK or VCDK
	SBM uint16    // bit n allows credit subclass n
	SGC int       // supply group code, 0 to 999999
	SGN string    // supply group name, up to 40 characters
	ULM uint32    // unit limit for one module
}

// pairs returns the attributes in alphabetical order, with the session's KID.
func (a KeyAttributes) pairs(kid string) []string {
	exp := ""
	if !a.EXP.IsZero() {
		exp = a.EXP.UTC().Format(Date)
	}
	return []string{
		"ACT", a.ACT.UTC().Format(DateTime), "BDT", strconv.Itoa(a.BDT),
		"CLM", fmt.Sprintf("%08X", a.CLM), "CLU", strconv.Itoa(a.CLU), "DKG", fmt.Sprintf("%02d", a.DKG),
		"EXP", exp, "IUT", a.IUT.UTC().Format(DateTime), "KCV", a.KCV, "KEN", strconv.Itoa(a.KEN),
		"KID", kid, "KRN", strconv.Itoa(a.KRN), "KTC", a.KTC, "SBM", fmt.Sprintf("%04X", a.SBM),
		"SGC", fmt.Sprintf("%06d", a.SGC), "SGN", a.SGN, "ULM", fmt.Sprintf("%08X", a.ULM),
	}
}

// WrapVendingKey makes the VK.WRAP.1 record of a vending key in a session.
func WrapVendingKey(keys SessionKeys, kid string, a KeyAttributes, vk []byte) (Record, error) {
	wrapped, err := WrapKey(keys.KEK, vk)
	if err != nil {
		return Record{}, err
	}
	rec := NewRecord(TypeWrappedKey, append(a.pairs(kid), "WVK", upperHex(wrapped))...)
	mac, err := CMAC(keys.KAK, []byte(rec.Body()))
	if err != nil {
		return Record{}, err
	}
	rec.Fields = append(rec.Fields, Field{"MAC", upperHex(mac)})
	return rec, nil
}

// ErrAuthentication is a key record that was not made in this session.
var ErrAuthentication = errors.New("the key record does not belong to this key-agreement session")

// ParseWrappedKey reads a VK.WRAP.1 record without judging its values.
func ParseWrappedKey(record string) (Record, error) {
	rec, err := ParseRecord(record)
	if err != nil {
		return Record{}, err
	}
	if err := rec.ofType(TypeWrappedKey, "ACT", "BDT", "CLM", "CLU", "DKG", "EXP", "IUT", "KCV", "KEN",
		"KID", "KRN", "KTC", "SBM", "SGC", "SGN", "ULM", "WVK", "MAC"); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return rec, nil
}

// Authenticate checks that a key record belongs to the session: its KID and its
// MAC. It is checked before anything in the record is believed.
func Authenticate(rec Record, kid string, kak []byte) error {
	mac, err := CMAC(kak, []byte(rec.Before("MAC").Body()))
	if err != nil {
		return err
	}
	if rec.Get("KID") != kid || !VerifyTag([]byte(rec.Get("MAC")), []byte(upperHex(mac))) {
		return ErrAuthentication
	}
	return nil
}

// Attributes reads the attributes of a key record. ACT, BDT, DKG, IUT, KCV,
// KEN, KRN, KTC and SGC are mandatory; an absent limit is unlimited, an absent
// bitmap allows every subclass, an absent cluster is 0.
func Attributes(rec Record) (KeyAttributes, error) {
	r := reader{rec: rec}
	a := KeyAttributes{
		ACT: r.time("ACT", DateTime), BDT: r.number("BDT", 1993, 2035), CLM: Unlimited,
		IUT: r.time("IUT", DateTime), KCV: rec.Get("KCV"), KEN: r.number("KEN", 0, 255),
		KRN: r.number("KRN", 1, 9), KTC: r.text("KTC"), SBM: 0xFFFF, SGN: rec.Get("SGN"), ULM: Unlimited,
	}
	a.SGC, _ = strconv.Atoi(r.digits("SGC", 6))
	a.DKG, _ = strconv.Atoi(r.digits("DKG", 2))
	r.hex("KCV", 3)
	if r.err == nil && a.BDT != 1993 && a.BDT != 2014 && a.BDT != 2035 {
		r.fail("BDT", "is not 1993, 2014 or 2035")
	}
	if r.err == nil && a.DKG != 1 && a.DKG != 2 && a.DKG != 4 {
		r.fail("DKG", "is not 01, 02 or 04")
	}
	if r.err == nil && a.KTC != "VDDK" && a.KTC != "VUDK" && a.KTC != "VCDK" {
		r.fail("KTC", "is not VDDK, VUDK or VCDK")
	}
	if len(a.SGN) > 40 {
		r.fail("SGN", "is longer than 40 characters")
	}
	if rec.Get("EXP") != "" {
		a.EXP = r.time("EXP", Date)
	}
	if rec.Get("CLU") != "" {
		a.CLU = r.number("CLU", 0, 9)
	}
	if rec.Get("CLM") != "" {
		a.CLM = uint32(r.word("CLM", 4))
	}
	if rec.Get("ULM") != "" {
		a.ULM = uint32(r.word("ULM", 4))
	}
	if rec.Get("SBM") != "" {
		a.SBM = uint16(r.word("SBM", 2))
	}
	return a, r.err
}

// word reads a hex number of n octets.
func (r *reader) word(tag string, n int) (v uint64) {
	for _, b := range r.hex(tag, n) {
		v = v<<8 | uint64(b)
	}
	return v
}

// UnwrapVendingKey returns the key of an authenticated record.
func UnwrapVendingKey(rec Record, kek []byte) ([]byte, error) {
	r := reader{rec: rec}
	wrapped := r.hex("WVK", 0)
	if r.err != nil {
		return nil, r.err
	}
	return UnwrapKey(kek, wrapped)
}

// KeyName names a vending key to people: "SGC 123456 KRN 1".
func KeyName(sgc, krn int) string { return fmt.Sprintf("SGC %06d KRN %d", sgc, krn) }

// Printable makes s fit into a record's value: other characters become '?'.
func Printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '}' || c == ';' {
			return '?'
		}
		return c
	}, s)
}
