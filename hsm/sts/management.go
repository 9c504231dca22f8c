package sts

// Management is a class 2 token that is not a key-change section. Body, from bit
// 59: RND 4, TID 24, Value 16. The meaning of Value depends on the subclass:
//
//	 0  SetMaximumPowerLimit                W, coded as Amount16
//	 1  ClearCredit                         a register, see RegisterAll
//	 2  SetTariffRate                       rate, coding reserved by the STSA
//	 5  ClearTamperCondition                0 (padding)
//	 6  SetMaximumPhasePowerUnbalanceLimit  W, coded as Amount16
//	 7  SetWaterMeterFactor                 factor, coding reserved by the STSA
//	10  WriteExtendedToken                  see Extended (STS 202-5)
//	11..15                                  proprietary; this layout is assumed
type Management struct {
	SubClass SubClass // 0..2, 5..7, 10..15
	RND      uint8    // 4 bits, any value
	TID      TID      // 24 bits
	Value    uint16   // 16 bits
}

func (Management) message() {}

// APDU lays the token out.
func (m Management) APDU() (APDU, error) {
	switch m.SubClass {
	case Set1stSectionDecoderKey, Set2ndSectionDecoderKey, Set3rdSectionDecoderKey, Set4thSectionDecoderKey:
		return APDU{}, fail(ErrReserved, "SubClass", "a key-change section is a KeySection")
	case ClearTamperCondition:
		if m.Value != 0 {
			return APDU{}, fail(ErrRange, "Value", "ClearTamperCondition carries zero")
		}
	}
	if m.SubClass > 15 {
		return APDU{}, fail(ErrRange, "SubClass", "expected 4 bits")
	}
	body, err := timedBody(m.RND, m.TID, m.Value)
	if err != nil {
		return APDU{}, err
	}
	return buildAPDU(ClassManagement, m.SubClass, body), nil
}

func readManagement(sub SubClass, body uint64) Message {
	return Management{sub, uint8(body >> 40), TID(body >> 16 & 0xFFFFFF), uint16(body)}
}

// The registers of a ClearCredit token.
const (
	RegisterElectricity         = 0
	RegisterWater               = 1
	RegisterGas                 = 2
	RegisterTime                = 3
	RegisterElectricityCurrency = 4
	RegisterWaterCurrency       = 5
	RegisterGasCurrency         = 6
	RegisterTimeCurrency        = 7
	RegisterAll                 = 0xFFFF
)

// Extended is the 16-bit field of an extended token set write (STS 202-5), most
// significant bit first: Index 6 bits, then 10 bits. Index 63 addresses a flag,
// the 10 bits being FlagIndex 9 and FlagValue 1; any other index addresses a
// register whose new content is the 10 bits.
type Extended uint16

const flagIndex = 63 // the Index that announces a flag

// ExtendedFlag returns the field that sets flag 0..511 on or off.
func ExtendedFlag(flag uint16, on bool) (Extended, error) {
	if flag > 511 {
		return 0, fail(ErrRange, "FlagIndex", "expected 0..511")
	}
	e := Extended(flagIndex<<10 | flag<<1)
	if on {
		e |= 1
	}
	return e, nil
}

// ExtendedRegister returns the field that writes value 0..1023 to register
// 0..62.
func ExtendedRegister(register, value uint16) (Extended, error) {
	if register >= flagIndex {
		return 0, fail(ErrRange, "Index", "expected 0..62")
	}
	if value > 1023 {
		return 0, fail(ErrRange, "ControlValue", "expected 0..1023")
	}
	return Extended(register<<10 | value), nil
}

// Flag returns the flag that the field sets; ok is false if it writes a
// register.
func (e Extended) Flag() (flag uint16, on, ok bool) {
	return uint16(e) >> 1 & 511, e&1 == 1, e>>10 == flagIndex
}

// Register returns the register that the field writes; ok is false if it sets a
// flag.
func (e Extended) Register() (register, value uint16, ok bool) {
	return uint16(e) >> 10, uint16(e) & 1023, e>>10 != flagIndex
}
