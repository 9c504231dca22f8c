package sts

// KeyChange is what a key-change set moves into a meter: the new decoder key
// with its attributes.
type KeyChange struct {
	Key      DecoderKey // the new key; gives EA and KT
	KRN      KRN        // of the new vending key
	TI       TI         // new tariff index
	KEN      KEN        // new key expiry number
	SGC      SGC        // new supply group code; not on two-token EA07 sets
	Rollover bool       // RO: the meter clears its TID memory; see Rollover
}

// Sections returns the sections of the set in order: count is 4 for EA11, 2 or 3
// for EA07. With two tokens SGC is not transferred. The layout of the third
// EA07 section is unconfirmed.
func (c KeyChange) Sections(count int) ([]KeySection, error) {
	return c.AppendSections(nil, count)
}

// AppendSections appends the sections of Sections to dst.
func (c KeyChange) AppendSections(dst []KeySection, count int) ([]KeySection, error) {
	ea := c.Key.EA()
	switch {
	case ea == EA07 && (count == 2 || count == 3), ea == EA11 && count == 4:
	default:
		return dst, fail(ErrRange, "NumTokens", "expected 2 or 3 for EA07 and 4 for EA11")
	}
	if c.Key.KeyType() == DITK {
		return dst, fail(ErrKeyChange, "KT", "no key change leads to a DITK")
	}
	switch {
	case !c.KRN.Valid():
		return dst, fail(ErrRange, "KRN", "expected 1..9")
	case !c.TI.Valid():
		return dst, fail(ErrRange, "TI", "expected 0..99")
	case !c.SGC.Valid():
		return dst, fail(ErrRange, "SGC", "expected 0..999999")
	}
	w := c.Key.words()
	first := KeySection{EA: ea, Number: 1, Key: w[0], KEN: uint8(c.KEN >> 4), KRN: c.KRN,
		Rollover: c.Rollover, Three: count == 3, KT: c.Key.KeyType()}
	second := KeySection{EA: ea, Number: 2, KEN: uint8(c.KEN & 15), TI: c.TI}
	if ea == EA07 {
		second.Key = w[1]
		dst = append(dst, first, second)
		if count == 3 {
			dst = append(dst, KeySection{EA: ea, Number: 3, SGC: c.SGC})
		}
		return dst, nil
	}
	second.Key = w[3]
	return append(dst, first, second,
		KeySection{EA: ea, Number: 3, Key: w[1], SGC: c.SGC & 0xFFF},
		KeySection{EA: ea, Number: 4, Key: w[2], SGC: c.SGC >> 12}), nil
}

// KeySections collects the sections of a key-change set on the meter's side, in
// any order. The zero value is empty; values are immutable.
type KeySections struct {
	have    [4]bool
	section [4]KeySection
}

// With returns the collection with s in its place: a section that comes again
// replaces the earlier one. It is ErrRange if s is not a possible section and
// ErrKeyChange if its encryption algorithm is not that of the others.
func (k KeySections) With(s KeySection) (KeySections, error) {
	if err := s.check(); err != nil {
		return k, err
	}
	for i, other := range k.section {
		if k.have[i] && other.EA != s.EA {
			return k, fail(ErrKeyChange, "EA", "sections of different algorithms")
		}
	}
	k.have[s.Number-1] = true
	k.section[s.Number-1] = s
	return k, nil
}

// Empty reports whether no section has come.
func (k KeySections) Empty() bool { return k == KeySections{} }

// Has reports whether section number 1..4 has come.
func (k KeySections) Has(number int) bool {
	return number >= 1 && number <= 4 && k.have[number-1]
}

// Missing returns the numbers of the sections that must still come, nil when the
// set is complete. How many an EA07 set has is known from its first section; a
// third section that has come is kept even if the first says two.
func (k KeySections) Missing() []int {
	var missing []int
	for i := range k.count() {
		if !k.have[i] {
			missing = append(missing, i+1)
		}
	}
	return missing
}

// count returns the size of the set as far as it is known.
func (k KeySections) count() int {
	switch {
	case k.have[3], k.have[0] && k.section[0].EA == EA11, k.have[1] && k.section[1].EA == EA11, k.have[2] && k.section[2].EA == EA11:
		return 4
	case k.have[0] && k.section[0].Three:
		return 3
	case !k.have[0] && k.have[2]:
		return 3
	}
	return 2
}

// Complete returns the key change when every section has come; ok is false
// before. SGC is 0 for a two-token EA07 set, whose meter keeps its own: see
// CarriesSGC. A supply group code above 999999 is ErrRange, a key type 0
// ErrKeyChange.
func (k KeySections) Complete() (c KeyChange, ok bool, err error) {
	n := k.count()
	for i := range n {
		if !k.have[i] {
			return KeyChange{}, false, nil
		}
	}
	s := k.section
	if s[0].KT == DITK {
		return KeyChange{}, false, fail(ErrKeyChange, "KT", "no key change leads to a DITK")
	}
	c = KeyChange{KRN: s[0].KRN, TI: s[1].TI, KEN: KEN(s[0].KEN<<4 | s[1].KEN), Rollover: s[0].Rollover}
	if s[0].EA == EA07 {
		c.Key = keyOfWords(EA07, s[0].KT, [4]uint32{s[0].Key, s[1].Key})
		if n == 3 {
			c.SGC = s[2].SGC
		}
	} else {
		c.Key = keyOfWords(EA11, s[0].KT, [4]uint32{s[0].Key, s[2].Key, s[3].Key, s[1].Key})
		c.SGC = s[3].SGC<<12 | s[2].SGC
	}
	if !c.SGC.Valid() {
		return KeyChange{}, false, fail(ErrRange, "SGC", "expected 0..999999")
	}
	return c, true, nil
}

// CarriesSGC reports whether the set transfers a supply group code: every EA11
// set, and EA07 sets of three tokens.
func (k KeySections) CarriesSGC() bool { return k.count() > 2 }
