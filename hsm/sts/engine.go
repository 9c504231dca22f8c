package sts

// Variant selects how the token ciphers are computed. Both give the same tokens.
type Variant uint8

const (
	// ConstantTime computes substitutions with arithmetic: no memory access and
	// no branch depends on keys or data. It is the default (the zero value):
	// modules of different tenants share the caches of one host, where lookups
	// at secret addresses can be observed by a neighbour, and the difference,
	// some 0.2 microseconds for EA07 and 0.6 for EA11, is small beside making
	// the token durable.
	ConstantTime Variant = iota
	// TableDriven looks substitutions up in memory, at addresses that depend on
	// the key: the fastest, for hosts that nobody else shares and for tests.
	TableDriven
)

// String returns "table-driven" or "constant-time".
func (v Variant) String() string {
	if v == TableDriven {
		return "table-driven"
	}
	return "constant-time"
}

// Engine makes and opens tokens: the ciphers with their tables. It is immutable
// and safe for concurrent use.
type Engine struct {
	tables       *Tables
	constantTime bool
}

// NewEngine returns an engine with the STA tables of EA07; nil means the built-in
// sample set of IECSample. EA11 uses no tables.
func NewEngine(tables *Tables, v Variant) *Engine {
	if tables == nil {
		tables = IECSample()
	}
	return &Engine{tables: tables, constantTime: v != TableDriven}
}

// Tables returns the STA tables in use.
func (e *Engine) Tables() *Tables { return e.tables }

// Variant returns the cipher variant in use.
func (e *Engine) Variant() Variant {
	if e.constantTime {
		return ConstantTime
	}
	return TableDriven
}

// Encrypt makes a token of an APDU: classes 0 and 2 are encrypted under the
// meter's current decoder key, class 1 is not and ignores the key; then the
// class is inserted. Class 0 under a DDTK is ErrDDTKCredit. It does not allocate
// unless it fails.
func (e *Engine) Encrypt(key DecoderKey, a APDU) (Token, error) {
	switch a.class {
	case ClassMeterTest:
		return insertClass(a.class, a.block), nil
	case ClassReserved:
		return Token{}, fail(ErrReserved, "Class", "class 3 is reserved")
	case ClassCredit:
		if key.kt == DDTK {
			return Token{}, fail(ErrDDTKCredit, "KT", "class 0 is not allowed under a DDTK")
		}
	}
	if key.IsZero() {
		return Token{}, fail(ErrKey, "DecoderKey", "missing")
	}
	return insertClass(a.class, e.EncryptBlock(key, a.block)), nil
}

// Decrypt opens a token: it takes the class out, decrypts classes 0 and 2 and
// verifies the check field. A wrong one is ErrCRC, then class 0 under a DDTK is
// ErrDDTKCredit; with both the APDU is returned too. Whether the content makes
// sense is for Message to say.
func (e *Engine) Decrypt(key DecoderKey, t Token) (APDU, error) {
	class, block := t.extractClass()
	switch class {
	case ClassMeterTest:
	case ClassReserved:
		return APDU{}, fail(ErrReserved, "Class", "class 3 is reserved")
	default:
		if key.IsZero() {
			return APDU{}, fail(ErrKey, "DecoderKey", "missing")
		}
		block = e.DecryptBlock(key, block)
	}
	a := APDU{class, block}
	if !a.Valid() {
		return a, fail(ErrCRC, "CRC", "mistyped digits, another meter's token or another key")
	}
	if class == ClassCredit && key.kt == DDTK {
		return a, fail(ErrDDTKCredit, "KT", "class 0 is not allowed under a DDTK")
	}
	return a, nil
}

// Decode opens a token and reads its content: Decrypt, then Message. It is the
// one decoder of verification, security module and meter.
func (e *Engine) Decode(key DecoderKey, t Token) (Message, error) {
	a, err := e.Decrypt(key, t)
	if err != nil {
		return nil, err
	}
	return a.Message(key.ea)
}

// Encode makes the token of a message. In code that must not allocate, call the
// APDU method of the concrete message and Encrypt.
func (e *Engine) Encode(key DecoderKey, m Message) (Token, error) {
	a, err := m.APDU()
	if err != nil {
		return Token{}, err
	}
	return e.Encrypt(key, a)
}

// KeyChangeTokens makes the tokens of a key-change set, in order, encrypted
// under the old key. It is ErrKeyChange if the algorithms differ or the key
// types do not permit the change (see PermitsKeyChange).
func (e *Engine) KeyChangeTokens(old DecoderKey, c KeyChange, count int) ([]Token, error) {
	if old.ea != c.Key.ea {
		return nil, fail(ErrKeyChange, "EA", "old and new key are for different algorithms")
	}
	if !PermitsKeyChange(old.kt, c.Key.kt) {
		return nil, fail(ErrKeyChange, "KT", "no change from "+old.kt.String()+" to "+c.Key.kt.String())
	}
	sections, err := c.Sections(count)
	if err != nil {
		return nil, err
	}
	tokens := make([]Token, len(sections))
	for i, s := range sections {
		if tokens[i], err = e.Encode(old, s); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// EncryptBlock encrypts one 64-bit data block: STA for an EA07 key, MISTY1 for
// an EA11 key.
func (e *Engine) EncryptBlock(key DecoderKey, block uint64) uint64 {
	switch {
	case key.ea == EA07 && e.constantTime:
		return e.tables.slow.encrypt(key.lo, block)
	case key.ea == EA07:
		return e.tables.fast.encrypt(key.lo, block)
	case e.constantTime:
		return mistyConstantTime{}.encrypt(key.hi, key.lo, block)
	}
	return mistyTables{}.encrypt(key.hi, key.lo, block)
}

// DecryptBlock undoes EncryptBlock.
func (e *Engine) DecryptBlock(key DecoderKey, block uint64) uint64 {
	switch {
	case key.ea == EA07 && e.constantTime:
		return e.tables.slow.decrypt(key.lo, block)
	case key.ea == EA07:
		return e.tables.fast.decrypt(key.lo, block)
	case e.constantTime:
		return mistyConstantTime{}.decrypt(key.hi, key.lo, block)
	}
	return mistyTables{}.decrypt(key.hi, key.lo, block)
}
