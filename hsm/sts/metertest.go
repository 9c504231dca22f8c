package sts

// MeterTest is a class 1 token, which is never encrypted (InitiateMeterTest or
// display). Body, from bit 59, by subclass:
//
//	0, 2, 11..15  Control 36, Manufacturer 8  (a code of two digits)
//	1, 6..10      Control 28, Manufacturer 16 (a code of four digits)
//
// Subclasses 3..5 are reserved. The manufacturer code of subclasses 0..2 is 0
// in every published token; it is coded in plain binary, which no public vector
// confirms for other values.
type MeterTest struct {
	SubClass     SubClass // 0..2, 6..15
	Control      uint64   // 36 or 28 bits, one bit a test: see TestControl
	Manufacturer uint16   // 0..99 or 0..9999
}

func (MeterTest) message() {}

// wide reports the 28-bit control form with its 16-bit manufacturer code.
func (m MeterTest) wide() bool {
	return m.SubClass == MeterTest4Digit || m.SubClass >= 6 && m.SubClass <= 10
}

// APDU lays the token out.
func (m MeterTest) APDU() (APDU, error) {
	if err := m.check(); err != nil {
		return APDU{}, err
	}
	body := m.Control<<8 | uint64(m.Manufacturer)
	if m.wide() {
		body = m.Control<<16 | uint64(m.Manufacturer)
	}
	return buildAPDU(ClassMeterTest, m.SubClass, body), nil
}

func (m MeterTest) check() error {
	width, codes := 36, uint16(99)
	if m.wide() {
		width, codes = 28, 9999
	}
	switch {
	case m.SubClass > 15 || m.SubClass >= 3 && m.SubClass <= 5:
		return fail(ErrReserved, "SubClass", "class 1 has subclasses 0..2 and 6..15")
	case m.Control>>width != 0:
		return fail(ErrRange, "Control", "too wide for its subclass")
	case m.Manufacturer > codes:
		return fail(ErrRange, "MfrCode", "too large for its subclass")
	}
	return nil
}

func readMeterTest(sub SubClass, body uint64) (Message, error) {
	m := MeterTest{SubClass: sub, Control: body >> 8, Manufacturer: uint16(body & 0xFF)}
	if m.wide() {
		m.Control, m.Manufacturer = body>>16, uint16(body)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

// TestNumber is the number of a meter test, 0..36. Bit n-1 of the control field
// asks for test n; all bits together are test 0.
type TestNumber uint8

// The meter tests.
const (
	TestAll                 TestNumber = 0
	TestLoadSwitch          TestNumber = 1
	TestDisplay             TestNumber = 2
	TestTotals              TestNumber = 3 // cumulative usage
	TestKRN                 TestNumber = 4
	TestTI                  TestNumber = 5
	TestTokenReader         TestNumber = 6
	TestPowerLimit          TestNumber = 7
	TestTamperStatus        TestNumber = 8
	TestPowerConsumption    TestNumber = 9
	TestSoftwareVersion     TestNumber = 10
	TestPhaseUnbalanceLimit TestNumber = 11
	TestWaterMeterFactor    TestNumber = 12
	TestTariffRate          TestNumber = 13
	TestEA                  TestNumber = 14
	TestKeyChangeTokens     TestNumber = 15 // how many the meter takes
	TestSGC                 TestNumber = 16
	TestKEN                 TestNumber = 17
	TestDRN                 TestNumber = 18
)

// TestControl returns the control field of one test in the format of subclass
// sub: the bit of the test, or all bits for test 0. It is ErrRange if the field
// has no such bit.
func TestControl(sub SubClass, test TestNumber) (uint64, error) {
	width := uint64(36)
	if (MeterTest{SubClass: sub}).wide() {
		width = 28
	}
	if uint64(test) > width {
		return 0, fail(ErrRange, "Control", "no such test in this subclass")
	}
	if test == TestAll {
		return 1<<width - 1, nil
	}
	return 1 << (test - 1), nil
}

// ReadFlagControl returns the 36-bit control field of a ReadExtendedToken token
// that asks for flag 0..511: Index 63 in bits 35..30, FlagIndex after it in bits
// 29..21. Only flag 0 (FC0000000 hex) is confirmed by a published token; the
// position of other flags is inferred from the write form.
func ReadFlagControl(flag uint16) (uint64, error) {
	if flag > 511 {
		return 0, fail(ErrRange, "FlagIndex", "expected 0..511")
	}
	return flagIndex<<30 | uint64(flag)<<21, nil
}

// ReadRegisterControl returns the 36-bit control field of a ReadExtendedToken
// token that asks for register 0..62: Index in bits 35..30, zeros below.
func ReadRegisterControl(register uint16) (uint64, error) {
	if register >= flagIndex {
		return 0, fail(ErrRange, "Index", "expected 0..62")
	}
	return uint64(register) << 30, nil
}
