package sts

// KeySection is one token of a key-change set (class 2, subclass 3, 4, 8 or 9).
// A section is encrypted under the meter's old decoder key and carries part of
// the new one with its attributes. Body, from bit 59:
//
//	1st (sub 3)   KENHO 4, KRN 4, RO 1, 3KCT 1, KT 2, NKHO 32
//	2nd (sub 4)   KENLO 4, TI 8 (binary), NKLO 32
//	3rd (sub 8)   EA11: SGC low 12, NKMO2 32; EA07: see readThird07
//	4th (sub 9)   EA11: SGC high 12, NKMO1 32
//
// An EA07 key is NKHO, NKLO; an EA11 key is NKHO, NKMO2, NKMO1, NKLO. 3KCT says
// that an EA07 set has three tokens; under EA11 the bit is reserved, zero.
// Fields that a section does not carry are zero.
type KeySection struct {
	EA       EA      // of the meter; not on the token
	Number   int     // 1..4
	Key      uint32  // 32 bits of the new key
	KEN      uint8   // 4 bits: high order in section 1, low order in section 2
	KRN      KRN     // section 1
	Rollover bool    // section 1, the RO bit
	Three    bool    // section 1 of EA07, the 3KCT bit
	KT       KeyType // section 1
	TI       TI      // section 2
	SGC      SGC     // low or high 12 bits, or all 24 in the third of EA07
}

func (KeySection) message() {}

// APDU lays the section out.
func (s KeySection) APDU() (APDU, error) {
	if err := s.check(); err != nil {
		return APDU{}, err
	}
	key := uint64(s.Key)
	switch s.Number {
	case 1:
		flags := uint64(s.KT)
		if s.Rollover {
			flags |= 8
		}
		if s.Three {
			flags |= 4
		}
		return buildAPDU(ClassManagement, Set1stSectionDecoderKey, uint64(s.KEN)<<40|uint64(s.KRN)<<36|flags<<32|key), nil
	case 2:
		return buildAPDU(ClassManagement, Set2ndSectionDecoderKey, uint64(s.KEN)<<40|uint64(s.TI)<<32|key), nil
	case 3:
		if s.EA == EA07 {
			return buildAPDU(ClassManagement, Set3rdSectionDecoderKey, third07(s.SGC)), nil
		}
		return buildAPDU(ClassManagement, Set3rdSectionDecoderKey, uint64(s.SGC)<<32|key), nil
	default:
		return buildAPDU(ClassManagement, Set4thSectionDecoderKey, uint64(s.SGC)<<32|key), nil
	}
}

// third07 is the body of the third token of a three-token EA07 set: SGC 24 bits,
// binary, then 20 zero bits.
//
// UNCONFIRMED: public sources say that this token carries the supply group code
// and is subclass 8, none gives its layout, and no token of this kind can be
// decrypted without the production STA tables. This function and readThird07
// are the only places that know it.
func third07(sgc SGC) uint64 { return uint64(sgc) << 20 }

// readThird07 undoes third07.
func readThird07(body uint64) (SGC, bool) { return SGC(body >> 20), body&0xFFFFF == 0 }

func readKeySection(ea EA, sub SubClass, body uint64) (Message, error) {
	s := KeySection{EA: ea, Key: uint32(body)}
	switch sub {
	case Set1stSectionDecoderKey:
		s.Number = 1
		s.KEN = uint8(body >> 40)
		s.KRN = KRN(body >> 36 & 15)
		s.Rollover = body>>35&1 == 1
		s.Three = body>>34&1 == 1
		s.KT = KeyType(body >> 32 & 3)
	case Set2ndSectionDecoderKey:
		s.Number = 2
		s.KEN = uint8(body >> 40)
		s.TI = TI(body >> 32 & 0xFF)
	case Set3rdSectionDecoderKey:
		s.Number = 3
		s.SGC = SGC(body >> 32)
		if ea == EA07 {
			var ok bool
			s.Key = 0
			if s.SGC, ok = readThird07(body); !ok {
				return nil, fail(ErrRange, "SGC", "padding of the third section is not zero")
			}
		}
	default:
		s.Number = 4
		s.SGC = SGC(body >> 32)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// check refuses fields that are out of range, or not zero in a section that does
// not carry them: such a section would not decode to itself.
func (s KeySection) check() error {
	if !s.EA.Valid() {
		return fail(ErrRange, "EA", "expected 7 or 11")
	}
	carried := KeySection{EA: s.EA, Number: s.Number, Key: s.Key}
	var sgcMax SGC
	switch {
	case s.Number == 1:
		carried.KEN, carried.KRN, carried.Rollover, carried.Three, carried.KT = s.KEN, s.KRN, s.Rollover, s.Three, s.KT
		if !s.KRN.Valid() {
			return fail(ErrRange, "KRN", "expected 1..9")
		}
		if !s.KT.Valid() {
			return fail(ErrRange, "KT", "expected 0..3")
		}
		if s.Three && s.EA != EA07 {
			return fail(ErrRange, "3KCT", "the bit is reserved under EA11")
		}
	case s.Number == 2:
		carried.KEN, carried.TI = s.KEN, s.TI
		if !s.TI.Valid() {
			return fail(ErrRange, "TI", "expected 0..99")
		}
	case s.Number == 3 && s.EA == EA07:
		carried.Key, carried.SGC, sgcMax = 0, s.SGC, MaxSGC
	case s.Number == 3 || s.Number == 4 && s.EA == EA11:
		carried.SGC, sgcMax = s.SGC, 0xFFF
	default:
		return fail(ErrRange, "section", "expected 1..3 for EA07 and 1..4 for EA11")
	}
	switch {
	case s.KEN > 15:
		return fail(ErrRange, "KEN", "expected 4 bits")
	case s.SGC > sgcMax:
		return fail(ErrRange, "SGC", "too large for this section")
	case s != carried:
		return fail(ErrRange, "section", "a field is set that the section does not carry")
	}
	return nil
}
