package sts_test

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// A credit token of 25.6 kWh, from the vending key to the digits and back.
func Example() {
	secret, _ := hex.DecodeString("ABABABABABABABAB949494949494949401234567") // the compliance key
	vending, err := sts.NewVendingKey(sts.DKGA04, secret)
	if err != nil {
		fmt.Println(err)
		return
	}
	meter, err := sts.ParsePAN("00000000000")
	if err != nil {
		fmt.Println(err)
		return
	}
	key, err := vending.DecoderKey(sts.KeyParams{
		PAN: meter, EA: sts.EA11, KT: sts.DUTK, SGC: 201457, KRN: 1, TI: 1, BaseDate: sts.BaseDate2014,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	amount, err := sts.EncodeAmount(256)
	if err != nil {
		fmt.Println(err)
		return
	}
	tid, err := sts.BaseDate2014.IssueTID(time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC))
	if err != nil {
		fmt.Println(err)
		return
	}
	apdu, err := sts.Credit{Resource: sts.Electricity, RND: 5, TID: tid, Amount: amount}.APDU()
	if err != nil {
		fmt.Println(err)
		return
	}
	engine := sts.NewEngine(nil, sts.ConstantTime)
	token, err := engine.Encrypt(key, apdu)
	if err != nil {
		fmt.Println(err)
		return
	}

	message, err := engine.Decode(key, token)
	credit, ok := message.(sts.Credit)
	fmt.Println(len(token.String()), ok, err)
	fmt.Println(credit.Amount.Units(), sts.BaseDate2014.Time(credit.TID).Format(time.RFC3339))
	// Output:
	// 20 true <nil>
	// 256 2026-03-01T10:00:00Z
}

// Amounts are rounded up to what the field can express.
func ExampleEncodeAmount() {
	for _, units := range []uint64{16383, 16385, 180215} {
		amount, err := sts.EncodeAmount(units)
		fmt.Printf("%d units: %04X, %d issued, %v\n", units, uint16(amount), amount.Units(), err)
	}
	// Output:
	// 16383 units: 3FFF, 16383 issued, <nil>
	// 16385 units: 4001, 16394 issued, <nil>
	// 180215 units: 8000, 180224 issued, <nil>
}

// Binary floating point never changes an amount.
func ExampleUnitsOfFloat() {
	a, b := 0.1, 0.2
	units, err := sts.UnitsOfFloat((a + b) * 10) // 3.0000000000000004
	fmt.Println(units, err)
	// Output: 3 <nil>
}

// A meter collects the sections of a key change in any order.
func ExampleKeySections() {
	newKey, _ := sts.NewDecoderKey(sts.EA07, sts.DUTK, []byte("a secret"))
	sections, _ := sts.KeyChange{Key: newKey, KRN: 2, TI: 1, KEN: 255}.Sections(2)

	var set sts.KeySections
	set, _ = set.With(sections[1])
	fmt.Println("missing", set.Missing())
	set, _ = set.With(sections[0])
	change, complete, err := set.Complete()
	fmt.Println(complete, err, change.KRN, change.KEN, change.Key)
	// Output:
	// missing [1]
	// true <nil> 2 255 DecoderKey(EA07 DUTK)
}
