package sts_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	_, err := sts.NewDecoderKey(9, sts.DUTK, make([]byte, 8))
	isKind(t, err, sts.ErrRange)
	_, err = sts.NewDecoderKey(sts.EA07, 4, make([]byte, 8))
	isKind(t, err, sts.ErrRange)
	_, err = sts.NewDecoderKey(sts.EA11, sts.DUTK, make([]byte, 8))
	isKind(t, err, sts.ErrKey)
	for _, c := range []struct {
		g sts.DKGA
		n int
	}{{sts.DKGA02, 20}, {sts.DKGA04, 8}, {1, 8}, {3, 16}} {
		_, err = sts.NewVendingKey(c.g, make([]byte, c.n))
		isKind(t, err, sts.ErrKey)
	}

	key, err := sts.NewDecoderKey(sts.EA07, sts.DUTK, unhex(t, "7676767676767676"))
	check(t, err)
	if key.KCV().String() != "4CBE91" {
		t.Error(key.KCV())
	}
	ea11, err := sts.NewDecoderKey(sts.EA11, sts.DUTK, unhex(t, "00112233445566778899AABBCCDDEEFF"))
	check(t, err)
	zeros := sts.NewEngine(nil, sts.TableDriven).EncryptBlock(ea11, 0)
	if got := fmt.Sprintf("%06X", zeros>>40); ea11.KCV().String() != got {
		t.Error(ea11.KCV(), got)
	}
	if key.Equal(ea11) || !key.Equal(key) || (sts.DecoderKey{}).AppendBytes(nil) != nil || !(sts.DecoderKey{}).IsZero() {
		t.Error("Equal, AppendBytes or IsZero")
	}

	v := newVend(t, sts.DKGA04, sts.EA11, sts.ConstantTime)
	h := hmac.New(sha256.New, unhex(t, "ABABABABABABABAB949494949494949401234567"))
	if got, want := v.vending.KCV().String(), fmt.Sprintf("%X", h.Sum(nil)[:3]); got != want {
		t.Errorf("KCV %s, want %s", got, want)
	}
	for _, secret := range []any{key, ea11, v.vending, &key} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			text := fmt.Sprintf(verb, secret)
			if !strings.HasPrefix(text, "DecoderKey(EA") && !strings.HasPrefix(text, "VendingKey(DKGA") || strings.Contains(strings.ToUpper(text), "7676") {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	if v.vending.DKGA() != sts.DKGA04 {
		t.Error(v.vending.DKGA())
	}

	good := v.params
	for change, kind := range map[*func(*sts.KeyParams)]error{
		ptr(func(p *sts.KeyParams) { p.PAN = sts.PAN{} }): sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.EA = 9 }):          sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.KT = sts.DITK }):   sts.ErrKey,
		ptr(func(p *sts.KeyParams) { p.KT = 4 }):          sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.SGC = 1000000 }):   sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.KRN = 0 }):         sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.TI = 100 }):        sts.ErrRange,
		ptr(func(p *sts.KeyParams) { p.BaseDate = 2000 }): sts.ErrRange,
	} {
		p := good
		(*change)(&p)
		_, err := v.vending.DecoderKey(p)
		isKind(t, err, kind)
	}
	_, err = newVend(t, sts.DKGA02, sts.EA07, sts.ConstantTime).vending.DecoderKey(good)
	isKind(t, err, sts.ErrKey)

	// every meter of a common key has the same one
	good.KT = sts.DCTK
	common, err := v.vending.DecoderKey(good)
	check(t, err)
	good.PAN = mustPAN(t, "11111111115")
	other, err := v.vending.DecoderKey(good)
	check(t, err)
	if !common.Equal(other) || common.KeyType() != sts.DCTK {
		t.Error("the common key depends on the meter")
	}

	v.vending.Wipe()
	if wiped, err := v.vending.DecoderKey(v.params); err == nil && wiped.Equal(v.key) {
		t.Error("the key survives Wipe")
	}
}

func ptr[T any](v T) *T { return &v }

func TestOddParity(t *testing.T) {
	t.Parallel()
	for b := range 256 {
		got := sts.OddParity([8]byte{3: byte(b)})
		ones := 0
		for i := range 8 {
			ones += int(got[3] >> i & 1)
		}
		if ones%2 != 1 || got[3]&^1 != byte(b)&^1 || got[0] != 1 {
			t.Errorf("%02X becomes %02X", b, got[3])
		}
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	const sample = `{"sub0":[12,10,8,4,3,15,0,2,14,1,5,13,6,9,7,11],"sub1":[6,9,7,4,3,10,12,14,2,13,1,15,0,11,8,5],
"perm":[29,27,34,9,16,62,55,2,40,49,38,25,33,61,30,23,1,41,21,57,42,15,5,58,19,53,22,17,48,28,24,39,
3,60,36,14,11,52,54,12,31,51,10,26,0,45,37,43,44,6,59,4,7,35,56,50,13,18,32,47,46,63,20,8],"comment":"ignored"}`
	loaded, err := sts.ParseTables("mine", []byte(sample))
	check(t, err)
	if loaded.Name() != "mine" || loaded.Fingerprint() != sts.IECSample().Fingerprint() {
		t.Error("the loaded set is not the sample")
	}
	for _, edit := range [][2]string{{"12,10,8", "12,10,9"}, {"[6,9", "[9,6"}, {"29,27", "29,29"}, {"29,27", "64,27"}, {"29,27", "27"}, {"[6,9", "[9"}, {"12,10,8", "-1,10,8"}, {"12,10,8", "256,10,8"}, {"12,10,8", "99,10,8"}} {
		_, err := sts.ParseTables("bad", []byte(strings.Replace(sample, edit[0], edit[1], 1)))
		isKind(t, err, sts.ErrTables)
	}
	for _, bad := range []string{"", "[]", `{"sub0":"x"}`, sample + "x"} {
		_, err := sts.ParseTables("bad", []byte(bad))
		isKind(t, err, sts.ErrFormat)
	}
}
