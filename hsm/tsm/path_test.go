package tsm_test

import (
	"encoding/hex"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// From key agreement to a token that the meter's own decoder key opens.
func TestKeyLoadThenCredit(t *testing.T) {
	t.Parallel()
	r := newRig(t).with(group(123456))
	for _, ea := range []int{7, 11} {
		in := r.creditInput()
		in.EA = ea
		out, err := r.credit(in)
		if err != nil {
			t.Fatal(err)
		}
		if out.Units != 102 {
			t.Errorf("EA%02d: %d units, want 102", ea, out.Units)
		}
		message := meterDecodes(t, r.kmc, out.Dec, ea)
		got, ok := message.(sts.Credit)
		if !ok || got.Amount.Units() != 102 || uint32(got.TID) != in.TID || got.Resource != sts.Electricity {
			t.Errorf("EA%02d: the meter reads %+v", ea, message)
		}
	}
}

// meterDecodes opens a token with the decoder key of meter pan11, tariff index
// 1, under the KMC's first key.
func meterDecodes(t *testing.T, k *kmc.KMC, token string, ea int) sts.Message {
	t.Helper()
	g := k.Groups()[0]
	raw, err := hex.DecodeString(g.Key)
	if err != nil {
		t.Fatal(err)
	}
	vk, err := sts.NewVendingKey(sts.DKGA(g.DKG), raw)
	if err != nil {
		t.Fatal(err)
	}
	pan, err := sts.ParsePAN(pan11)
	if err != nil {
		t.Fatal(err)
	}
	kt := map[string]sts.KeyType{"VDDK": sts.DDTK, "VUDK": sts.DUTK, "VCDK": sts.DCTK}[g.KTC]
	dk, err := vk.DecoderKey(sts.KeyParams{PAN: pan, EA: sts.EA(ea), KT: kt, SGC: sts.SGC(g.SGC),
		KRN: sts.KRN(g.KRN), TI: 1, BaseDate: sts.BaseDate(g.BDT)})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := sts.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	message, err := sts.NewEngine(nil, sts.TableDriven).Decode(dk, tok)
	if err != nil {
		t.Fatal(err)
	}
	return message
}
