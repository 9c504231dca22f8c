package sts_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// vectorKey is the key part of a vector, for the meter's key and the new one.
type vectorKey struct {
	DKGA       int
	KT         int
	SGC        string
	KRN        int
	TI         int
	KEN        int
	BaseDate   int
	VendingKey string
	DecoderKey string
	Rollover   bool
}

type vector struct {
	ID         string
	Class      int
	SubClass   int
	SubClasses []int
	EA         int
	PAN        string
	vectorKey
	New              *vectorKey
	Time             string
	TID              *uint32
	RND              uint8
	Amount           *uint64
	IssuedAmount     *uint64
	CurrencyUnits    *string
	IssuedUnits      *string
	EncodedAmount    string
	Watts            *uint64
	Value            uint16
	Control          uint64
	ManufacturerCode uint16
	Block            string
	Blocks           []string
	Tokens           []string
}

func loadVectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile("../../conformance/vectors/sts-tokens.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Format  string
		Vectors []vector
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if file.Format != "sts-vectors/1" || len(file.Vectors) != 658 {
		t.Fatalf("format %q with %d vectors, want sts-vectors/1 with 658", file.Format, len(file.Vectors))
	}
	return file.Vectors
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// derive makes the decoder key of a vector and compares it with the stated one.
func (k *vectorKey) derive(t *testing.T, ea int, pan string) sts.DecoderKey {
	t.Helper()
	p, err := sts.ParsePAN(pan)
	check(t, err)
	v, err := sts.NewVendingKey(sts.DKGA(k.DKGA), unhex(t, k.VendingKey))
	check(t, err)
	sgc, err := sts.ParseSGC(k.SGC)
	check(t, err)
	key, err := v.DecoderKey(sts.KeyParams{PAN: p, EA: sts.EA(ea), KT: sts.KeyType(k.KT), SGC: sgc,
		KRN: sts.KRN(k.KRN), TI: sts.TI(k.TI), BaseDate: sts.BaseDate(k.BaseDate)})
	check(t, err)
	if got := fmt.Sprintf("%X", key.AppendBytes(nil)); got != k.DecoderKey {
		t.Fatalf("decoder key %s, want %s", got, k.DecoderKey)
	}
	return key
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// messages builds the content of the vector's tokens from its inputs alone.
func (v *vector) messages(t *testing.T) []sts.Message {
	t.Helper()
	sub := sts.SubClass(v.SubClass)
	if v.Class == 1 {
		return []sts.Message{sts.MeterTest{SubClass: sub, Control: v.Control, Manufacturer: v.ManufacturerCode}}
	}
	if v.New != nil {
		key := v.New.derive(t, v.EA, v.PAN)
		sgc, err := sts.ParseSGC(v.New.SGC)
		check(t, err)
		if ro := sts.Rollover(sts.BaseDate(v.BaseDate), sts.BaseDate(v.New.BaseDate)); ro != v.New.Rollover {
			t.Fatalf("rollover %v, want %v", ro, v.New.Rollover)
		}
		sections, err := sts.KeyChange{Key: key, KRN: sts.KRN(v.New.KRN), TI: sts.TI(v.New.TI),
			KEN: sts.KEN(v.New.KEN), SGC: sgc, Rollover: v.New.Rollover}.Sections(len(v.SubClasses))
		check(t, err)
		var all []sts.Message
		for _, s := range sections {
			all = append(all, s)
		}
		return all
	}
	at, err := time.Parse(time.RFC3339, v.Time)
	check(t, err)
	tid, err := sts.BaseDate(v.BaseDate).IssueTID(at)
	check(t, err)
	if uint32(tid) != *v.TID {
		t.Fatalf("TID %d, want %d", tid, *v.TID)
	}
	switch {
	case v.Class == 0 && v.SubClass < 4:
		a, err := sts.EncodeAmount(*v.Amount)
		check(t, err)
		if got := fmt.Sprintf("%04X", uint16(a)); got != v.EncodedAmount || a.Units() != *v.IssuedAmount {
			t.Fatalf("amount %s, %d issued, want %s, %d", got, a.Units(), v.EncodedAmount, *v.IssuedAmount)
		}
		return []sts.Message{sts.Credit{Resource: sts.Resource(v.SubClass), RND: v.RND, TID: tid, Amount: a}}
	case v.Class == 0:
		c, err := sts.ParseCurrencyUnits(*v.CurrencyUnits)
		check(t, err)
		a, err := sts.EncodeCurrency(c)
		check(t, err)
		if got := fmt.Sprintf("%05X", uint32(a)); got != v.EncodedAmount || a.Currency().Units() != *v.IssuedUnits {
			t.Fatalf("amount %s, %s issued, want %s, %s", got, a.Currency().Units(), v.EncodedAmount, *v.IssuedUnits)
		}
		return []sts.Message{sts.CurrencyCredit{Resource: sts.Resource(v.SubClass - 4), TID: tid, Amount: a}}
	}
	value := v.Value
	if v.Watts != nil {
		a, err := sts.EncodeAmount(*v.Watts)
		check(t, err)
		value = uint16(a)
	}
	return []sts.Message{sts.Management{SubClass: sub, RND: v.RND, TID: tid, Value: value}}
}

// TestVectors makes every token of the vector file from its inputs and reads it
// back to its content, with both cipher variants.
func TestVectors(t *testing.T) {
	for _, variant := range []sts.Variant{sts.TableDriven, sts.ConstantTime} {
		engine := sts.NewEngine(nil, variant)
		for _, v := range loadVectors(t) {
			t.Run(variant.String()+"/"+v.ID, func(t *testing.T) {
				var key sts.DecoderKey
				if v.Class != 1 {
					key = v.derive(t, v.EA, v.PAN)
				}
				blocks := v.Blocks
				if v.Block != "" {
					blocks = []string{v.Block}
				}
				messages := v.messages(t)
				if len(messages) != len(v.Tokens) {
					t.Fatalf("%d tokens, want %d", len(messages), len(v.Tokens))
				}
				var collected sts.KeySections
				for i, m := range messages {
					apdu, err := m.APDU()
					check(t, err)
					if got := fmt.Sprintf("%016X", apdu.Block()); got != blocks[i] {
						t.Fatalf("block %s, want %s", got, blocks[i])
					}
					token, err := engine.Encrypt(key, apdu)
					check(t, err)
					if token.String() != v.Tokens[i] {
						t.Fatalf("token %s, want %s", token, v.Tokens[i])
					}
					read, err := sts.ParseToken(v.Tokens[i])
					check(t, err)
					back, err := engine.Decode(key, read)
					check(t, err)
					if back != m {
						t.Fatalf("decoded %+v, want %+v", back, m)
					}
					if s, ok := back.(sts.KeySection); ok {
						collected, err = collected.With(s)
						check(t, err)
					}
				}
				if v.New != nil {
					c, ok, err := collected.Complete()
					check(t, err)
					got := vectorKey{DKGA: v.New.DKGA, KT: int(c.Key.KeyType()), SGC: v.New.SGC, KRN: int(c.KRN), TI: int(c.TI), KEN: int(c.KEN),
						BaseDate: v.New.BaseDate, VendingKey: v.New.VendingKey, DecoderKey: fmt.Sprintf("%X", c.Key.AppendBytes(nil)), Rollover: c.Rollover}
					if collected.CarriesSGC() {
						got.SGC = c.SGC.String()
					}
					if !ok || got != *v.New {
						t.Fatalf("collected %+v, complete %v, want %+v", got, ok, *v.New)
					}
				}
			})
		}
	}
}
