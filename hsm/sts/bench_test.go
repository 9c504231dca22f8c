package sts_test

import (
	"crypto/des"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// The names in this file follow the convention of conformance/cmd/bench: a
// benchmark reports the name of its reference, and references are benchmarks
// whose name starts with BenchmarkReference.

// against is deferred: b.Loop and b.ResetTimer forget earlier metrics.
func against(b *testing.B, reference string) {
	b.ReportMetric(1, "ref:"+reference)
}

// vend holds what one credit token needs.
type vend struct {
	engine  *sts.Engine
	vending *sts.VendingKey
	params  sts.KeyParams
	key     sts.DecoderKey
	now     time.Time
}

func newVend(tb testing.TB, g sts.DKGA, ea sts.EA, variant sts.Variant) *vend {
	tb.Helper()
	secret := unhex(tb, "ABABABABABABABAB949494949494949401234567")
	if g == sts.DKGA02 {
		secret = secret[:8]
	}
	v, err := sts.NewVendingKey(g, secret)
	check(tb, err)
	pan, err := sts.ParsePAN("600727000000000009")
	check(tb, err)
	w := &vend{engine: sts.NewEngine(nil, variant), vending: v, params: sts.KeyParams{PAN: pan, EA: ea, KT: sts.DUTK, SGC: 201457, KRN: 1, TI: 1,
		BaseDate: sts.BaseDate2014}, now: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)}
	w.key, err = v.DecoderKey(w.params)
	check(tb, err)
	return w
}

// credit makes one token: amount, TID, block, cipher, 20 digits.
func (v *vend) credit(key sts.DecoderKey, units uint64, out []byte) ([]byte, error) {
	amount, err := sts.EncodeAmount(units)
	if err != nil {
		return nil, err
	}
	tid, err := v.params.BaseDate.IssueTID(v.now)
	if err != nil {
		return nil, err
	}
	apdu, err := sts.Credit{Resource: sts.Electricity, RND: 5, TID: tid, Amount: amount}.APDU()
	if err != nil {
		return nil, err
	}
	token, err := v.engine.Encrypt(key, apdu)
	if err != nil {
		return nil, err
	}
	return token.AppendDecimal(out), nil
}

func (v *vend) creditFromVendingKey(units uint64, out []byte) ([]byte, error) {
	key, err := v.vending.DecoderKey(v.params)
	if err != nil {
		return nil, err
	}
	return v.credit(key, units, out)
}

func benchVending(b *testing.B, g sts.DKGA, ea sts.EA, variant sts.Variant, reference string) {
	v := newVend(b, g, ea, variant)
	b.ReportAllocs()
	defer against(b, reference)
	var out [20]byte
	for i := uint64(0); b.Loop(); i++ {
		if _, err := v.creditFromVendingKey(i&0xFFFF, out[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func benchCached(b *testing.B, ea sts.EA, variant sts.Variant, reference string) {
	v := newVend(b, sts.DKGA04, ea, variant)
	b.ReportAllocs()
	defer against(b, reference)
	var out [20]byte
	for i := uint64(0); b.Loop(); i++ {
		if _, err := v.credit(v.key, i&0xFFFF, out[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreditEA11DKGA04(b *testing.B) {
	benchVending(b, sts.DKGA04, sts.EA11, sts.TableDriven, "TwoSHA256")
}
func BenchmarkCreditEA07DKGA04(b *testing.B) {
	benchVending(b, sts.DKGA04, sts.EA07, sts.TableDriven, "TwoSHA256")
}
func BenchmarkCreditEA07DKGA02(b *testing.B) {
	benchVending(b, sts.DKGA02, sts.EA07, sts.TableDriven, "DES")
}
func BenchmarkCreditEA11DKGA04ConstantTime(b *testing.B) {
	benchVending(b, sts.DKGA04, sts.EA11, sts.ConstantTime, "TwoSHA256")
}
func BenchmarkCreditEA07DKGA04ConstantTime(b *testing.B) {
	benchVending(b, sts.DKGA04, sts.EA07, sts.ConstantTime, "TwoSHA256")
}
func BenchmarkCreditEA11Cached(b *testing.B) {
	benchCached(b, sts.EA11, sts.TableDriven, "MISTY1KeyAndBlock")
}
func BenchmarkCreditEA07Cached(b *testing.B) { benchCached(b, sts.EA07, sts.TableDriven, "STABlock") }

func benchBlock(b *testing.B, ea sts.EA, variant sts.Variant, reference string) {
	v := newVend(b, sts.DKGA04, ea, variant)
	b.ReportAllocs()
	defer against(b, reference)
	x := uint64(0x0B19EB230100C207)
	for b.Loop() {
		x = v.engine.EncryptBlock(v.key, x) // chained: latency, not overlap
	}
}

func BenchmarkSTABlock(b *testing.B) { benchBlock(b, sts.EA07, sts.TableDriven, "DES") }
func BenchmarkSTABlockConstantTime(b *testing.B) {
	benchBlock(b, sts.EA07, sts.ConstantTime, "DES")
}
func BenchmarkMISTY1KeyAndBlock(b *testing.B) { benchBlock(b, sts.EA11, sts.TableDriven, "DES") }
func BenchmarkMISTY1KeyAndBlockConstantTime(b *testing.B) {
	benchBlock(b, sts.EA11, sts.ConstantTime, "DES")
}

func benchDerive(b *testing.B, g sts.DKGA, ea sts.EA, reference string) {
	v := newVend(b, g, ea, sts.TableDriven)
	b.ReportAllocs()
	defer against(b, reference)
	for b.Loop() {
		if _, err := v.vending.DecoderKey(v.params); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDKGA04(b *testing.B) { benchDerive(b, sts.DKGA04, sts.EA11, "TwoSHA256") }
func BenchmarkDKGA02(b *testing.B) { benchDerive(b, sts.DKGA02, sts.EA07, "DES") }

func benchDecode(b *testing.B, ea sts.EA, reference string) {
	v := newVend(b, sts.DKGA04, ea, sts.TableDriven)
	digits, err := v.credit(v.key, 10, nil)
	check(b, err)
	text := string(digits)
	b.ReportAllocs()
	defer against(b, reference)
	for b.Loop() {
		token, err := sts.ParseToken(text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := v.engine.Decode(v.key, token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeEA11(b *testing.B) { benchDecode(b, sts.EA11, "MISTY1KeyAndBlock") }
func BenchmarkDecodeEA07(b *testing.B) { benchDecode(b, sts.EA07, "STABlock") }

// benchCores makes credit tokens from the vending key on n cores at once.
func benchCores(b *testing.B, n int) {
	v := newVend(b, sts.DKGA04, sts.EA11, sts.TableDriven)
	b.ReportAllocs()
	defer against(b, "TwoSHA256")
	done := make(chan error, n)
	b.ResetTimer()
	for range n {
		go func() {
			var out [20]byte
			var err error
			for i := 0; i < b.N && err == nil; i++ {
				_, err = v.creditFromVendingKey(uint64(i)&0xFFFF, out[:0])
			}
			done <- err
		}()
	}
	for range n {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "tokens/s")
}

func BenchmarkTokens1Core(b *testing.B)  { benchCores(b, 1) }
func BenchmarkTokens2Cores(b *testing.B) { benchCores(b, 2) }

// BenchmarkReferenceTwoSHA256 is two bare SHA-256 compressions: the floor of
// DKGA04. 119 bytes are the most that two compressions take.
func BenchmarkReferenceTwoSHA256(b *testing.B) {
	var message [119]byte
	for b.Loop() {
		sum := sha256.Sum256(message[:])
		message[0] = sum[0]
	}
}

// BenchmarkReferenceDES is a DES key schedule and a block of the standard
// library: the floor of DKGA02 without a precomputed schedule.
func BenchmarkReferenceDES(b *testing.B) {
	key, block := make([]byte, 8), make([]byte, 8)
	for b.Loop() {
		c, err := des.NewCipher(key)
		if err != nil {
			b.Fatal(err)
		}
		c.Encrypt(block, block)
	}
}
