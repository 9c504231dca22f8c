package sts

// Resource is what a credit token pays for, 0..3.
type Resource uint8

// The resources, in the order of the class 0 subclasses.
const (
	Electricity Resource = 0 // unit 0.1 kWh
	Water       Resource = 1 // unit 0.1 cubic metre (1 hl)
	Gas         Resource = 2 // unit 0.1 cubic metre
	Time        Resource = 3 // unit 0.1 minute
)

// Valid reports whether r is 0..3.
func (r Resource) Valid() bool { return r <= Time }

// String returns the resource in lower case, such as "electricity".
func (r Resource) String() string {
	switch r {
	case Electricity:
		return "electricity"
	case Water:
		return "water"
	case Gas:
		return "gas"
	case Time:
		return "time"
	}
	return "unknown resource"
}

// Credit is a class 0 token of subclass 0..3 (TransferCredit): an amount of a
// resource in units. Body, from bit 59: RND 4, TID 24, Amount 16.
type Credit struct {
	Resource Resource // subclass 0..3
	RND      uint8    // 4 bits, any value
	TID      TID      // 24 bits
	Amount   Amount16 // 16 bits, see EncodeAmount
}

func (Credit) message() {}

// APDU lays the token out.
func (c Credit) APDU() (APDU, error) {
	if !c.Resource.Valid() {
		return APDU{}, fail(ErrRange, "SubClass", "expected a resource of 0..3")
	}
	body, err := timedBody(c.RND, c.TID, uint16(c.Amount))
	if err != nil {
		return APDU{}, err
	}
	return buildAPDU(ClassCredit, SubClass(c.Resource), body), nil
}

func readCredit(sub SubClass, body uint64) Message {
	return Credit{Resource(sub), uint8(body >> 40), TID(body >> 16 & 0xFFFFFF), Amount16(body)}
}

// CurrencyCredit is a class 0 token of subclass 4..7 (STS 202-1): an amount of
// money for a resource. Body, from bit 59: the upper 4 bits of Amount in the
// place of RND, TID 24, the lower 16 bits of Amount. Its check field is CRC_C.
type CurrencyCredit struct {
	Resource Resource // subclass 4..7, less 4
	TID      TID      // 24 bits
	Amount   Amount20 // 20 bits, see EncodeCurrency
}

func (CurrencyCredit) message() {}

// APDU lays the token out.
func (c CurrencyCredit) APDU() (APDU, error) {
	if !c.Resource.Valid() {
		return APDU{}, fail(ErrRange, "SubClass", "expected a resource of 0..3")
	}
	if !c.Amount.Valid() {
		return APDU{}, fail(ErrRange, "Amount", "expected 20 bits")
	}
	body, err := timedBody(uint8(c.Amount>>16), c.TID, uint16(c.Amount))
	if err != nil {
		return APDU{}, err
	}
	return buildAPDU(ClassCredit, SubClass(c.Resource)+4, body), nil
}

func readCurrencyCredit(sub SubClass, body uint64) Message {
	return CurrencyCredit{Resource(sub - 4), TID(body >> 16 & 0xFFFFFF), Amount20(body>>40<<16 | body&0xFFFF)}
}

// timedBody packs the 44 bits RND 4, TID 24, value 16.
func timedBody(rnd uint8, tid TID, value uint16) (uint64, error) {
	if rnd > 15 {
		return 0, fail(ErrRange, "RND", "expected 4 bits")
	}
	if !tid.Valid() {
		return 0, fail(ErrRange, "TID", "expected 24 bits")
	}
	return uint64(rnd)<<40 | uint64(tid)<<16 | uint64(value), nil
}
