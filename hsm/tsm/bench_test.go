package tsm_test

import (
	"context"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// benchRig is a module in memory that does not copy itself at each write.
func benchRig(b *testing.B, groups ...kmc.Group) (*rig, *bulkVault) {
	b.Helper()
	r := newRig(b).with(groups...)
	v := newBulkVault(r.vault)
	r.m = r.open(v)
	return r, v
}

// BenchmarkReferenceToken is the algorithm alone: decoder key and token.
func BenchmarkReferenceToken(b *testing.B) {
	vk, err := sts.NewVendingKey(sts.DKGA04, make([]byte, 20))
	if err != nil {
		b.Fatal(err)
	}
	pan, err := sts.ParsePAN(pan11)
	if err != nil {
		b.Fatal(err)
	}
	e := sts.NewEngine(nil, sts.ConstantTime)
	p := sts.KeyParams{PAN: pan, EA: sts.EA11, KT: sts.DUTK, SGC: 123456, KRN: 1, TI: 1, BaseDate: sts.BaseDate2014}
	for b.Loop() {
		dk, err := vk.DecoderKey(p)
		if err != nil {
			b.Fatal(err)
		}
		apdu, err := sts.Credit{RND: 5, TID: 85740, Amount: 1}.APDU()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := e.Encrypt(dk, apdu); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCredit is the same with every rule, and its limit debited in memory.
func BenchmarkCredit(b *testing.B) {
	defer func() { b.ReportMetric(1, "ref:Token") }()
	r, v := benchRig(b, group(123456, func(g *kmc.Group) { g.ULM = unlimit - 1 }))
	in := r.creditInput()
	in.Amount = 1
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.m.Credit(v, in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKeyLoad is SM?KL with the memory's part left out.
func BenchmarkKeyLoad(b *testing.B) {
	defer func() { b.ReportMetric(1, "ref:Token") }()
	r, _ := benchRig(b, group(100001), group(100002))
	request, err := r.m.KeyAgreement(context.Background(), r.publicKey(r.kmc))
	if err != nil {
		b.Fatal(err)
	}
	file := r.answer(r.kmc, request)
	if _, _, err := r.m.ProcessResponse(context.Background(), file.Response); err != nil {
		b.Fatal(err)
	}
	records := []string{file.Keys[0].String(), file.Keys[1].String()}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := r.m.LoadKey(context.Background(), file.KMC, records[i%2], 0); err != nil {
			b.Fatal(err)
		}
	}
}
