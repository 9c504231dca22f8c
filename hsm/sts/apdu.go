package sts

import "strconv"

// Class is the token class, 2 bits (IEC 62055-41 6.3).
type Class uint8

// The token classes.
const (
	ClassCredit     Class = 0 // transfer of credit, encrypted
	ClassMeterTest  Class = 1 // meter test and display, never encrypted
	ClassManagement Class = 2 // management and key change, encrypted
	ClassReserved   Class = 3 // reserved
)

// SubClass is the subclass of a token, 4 bits; its meaning depends on the class.
type SubClass uint8

// The subclasses of class 0 with units (4..7 are the same in currency).
const (
	CreditElectricity         SubClass = 0
	CreditWater               SubClass = 1
	CreditGas                 SubClass = 2
	CreditTime                SubClass = 3
	CreditElectricityCurrency SubClass = 4
	CreditWaterCurrency       SubClass = 5
	CreditGasCurrency         SubClass = 6
	CreditTimeCurrency        SubClass = 7
)

// The subclasses of class 1 that are not proprietary. 6..10 are proprietary in
// the format of MeterTest4Digit, 11..15 in that of MeterTest2Digit.
const (
	MeterTest2Digit   SubClass = 0 // 36-bit control, 8-bit manufacturer code
	MeterTest4Digit   SubClass = 1 // 28-bit control, 16-bit manufacturer code
	ReadExtendedToken SubClass = 2 // STS 202-5, format of MeterTest2Digit
)

// The subclasses of class 2. 11..15 are proprietary.
const (
	SetMaximumPowerLimit               SubClass = 0
	ClearCredit                        SubClass = 1
	SetTariffRate                      SubClass = 2
	Set1stSectionDecoderKey            SubClass = 3
	Set2ndSectionDecoderKey            SubClass = 4
	ClearTamperCondition               SubClass = 5
	SetMaximumPhasePowerUnbalanceLimit SubClass = 6
	SetWaterMeterFactor                SubClass = 7
	Set3rdSectionDecoderKey            SubClass = 8
	Set4thSectionDecoderKey            SubClass = 9
	WriteExtendedToken                 SubClass = 10 // STS 202-5
)

// APDU is a token before encryption (IEC 62055-41 6.2): the 2-bit class and the
// 64-bit data block. The layout of the block, from the most significant bit, is
//
//	63..60  SubClass
//	59..16  body, see the message types
//	15..0   CRC, or CRC_C for class 0 subclass 4..7
//
// Make one with the APDU method of a message, or with NewAPDU.
type APDU struct {
	class Class
	block uint64
}

// NewAPDU takes a class (0..3) and a data block as they are. Message and Valid
// say whether they make sense.
func NewAPDU(class Class, block uint64) APDU { return APDU{class & 3, block} }

// buildAPDU computes the check field of a 48-bit SubClass and body.
func buildAPDU(class Class, sub SubClass, body uint64) APDU {
	block := uint64(sub)<<60 | body<<16
	return APDU{class, block | uint64(crc(class, block, isCurrency(class, sub)))}
}

func isCurrency(class Class, sub SubClass) bool {
	return class == ClassCredit && sub >= 4 && sub <= 7
}

// Class returns the token class.
func (a APDU) Class() Class { return a.class }

// SubClass returns bits 63..60 of the data block.
func (a APDU) SubClass() SubClass { return SubClass(a.block >> 60) }

// Block returns the 64-bit data block.
func (a APDU) Block() uint64 { return a.block }

// CRC returns bits 15..0 of the data block.
func (a APDU) CRC() uint16 { return uint16(a.block) }

// Valid reports whether the check field fits.
func (a APDU) Valid() bool {
	return a.CRC() == crc(a.class, a.block, isCurrency(a.class, a.SubClass()))
}

// String names class and subclass, such as "class 0 subclass 4".
func (a APDU) String() string {
	return "class " + strconv.Itoa(int(a.class)) + " subclass " + strconv.Itoa(int(a.SubClass()))
}

// Message is the content of a token: Credit, CurrencyCredit, MeterTest,
// Management or KeySection.
type Message interface {
	// APDU lays the content out in a data block with its check field, or says
	// with ErrRange or ErrReserved which field is impossible.
	APDU() (APDU, error)

	message()
}

// Message reads the fields of the data block. The check field must fit (else
// ErrCRC), class and subclass must be defined (else ErrReserved) and so must
// the field values (else ErrRange). The key-change sections of EA07 and EA11
// differ, so the encryption algorithm of the meter must be told.
func (a APDU) Message(ea EA) (Message, error) {
	if !a.Valid() {
		return nil, fail(ErrCRC, "CRC", "the check field does not fit "+a.String())
	}
	sub, body := a.SubClass(), a.block>>16&bodyMask
	switch a.class {
	case ClassCredit:
		switch {
		case sub <= 3:
			return readCredit(sub, body), nil
		case sub <= 7:
			return readCurrencyCredit(sub, body), nil
		}
	case ClassMeterTest:
		if sub <= ReadExtendedToken || sub >= 6 {
			return readMeterTest(sub, body)
		}
	case ClassManagement:
		switch sub {
		case Set1stSectionDecoderKey, Set2ndSectionDecoderKey, Set3rdSectionDecoderKey, Set4thSectionDecoderKey:
			return readKeySection(ea, sub, body)
		default:
			return readManagement(sub, body), nil
		}
	}
	return nil, fail(ErrReserved, "SubClass", a.String())
}

const bodyMask = 1<<44 - 1
