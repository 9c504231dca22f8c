// Package sts implements the token algorithms of the Standard Transfer
// Specification as pure functions: decoder keys from vending keys, tokens from
// keys and amounts, and all of it back again. It performs no I/O, keeps no state
// and reads no clock.
//
// The names are those of IEC 62055-41 (application layer), STS 202-1 (currency
// credit), STS 202-5 (extended token set) and RFC 2994 (MISTY1), so that the
// package can be read with the standards beside it. Numbers of clauses refer to
// IEC 62055-41:2018: 6.1 data elements of the APDU, 6.2 tokens, 6.3 data
// elements in tokens, 6.4 TCDU generation, 6.5 security functions. Bits count
// from 0, the least significant; fields are binary, most significant bit first,
// unless said otherwise.
//
// # From a meter to a token
//
//	KeyParams (6.1) ── VendingKey.DecoderKey ── DecoderKey    6.5: DKGA02, DKGA04
//	Credit{...} (6.2) ── Credit.APDU ── APDU                  6.3: fields, check field
//	DecoderKey, APDU ── Engine.Encrypt ── Token               6.5: STA, MISTY1; 6.4
//
// A VendingKey holds what can be computed once per key. KeyParams names the
// meter and the revision; DecoderKey is the result, a small value that may be
// cached. A message (Credit, CurrencyCredit, Management, MeterTest, KeySection)
// lays itself out as an APDU: class, subclass, fields and check field. An Engine
// encrypts the APDU and inserts the class; the Token prints as 20 decimal digits
// (String) or 17 hexadecimal ones (Hex).
//
// Back: ParseToken, then Engine.Decode, which yields the same message. One
// decoder serves verification, the security module and the meter.
//
// Nothing on the way from VendingKey.DecoderKey to Token.AppendDecimal allocates
// memory.
//
// # The token
//
// 66 bits before encryption: Class 2, SubClass 4, body 44, check field 16. The
// lower 64 are the data block.
//
//	class 0  0..3    Credit          RND 4, TID 24, Amount 16
//	class 0  4..7    CurrencyCredit  Amount high 4, TID 24, Amount low 16; CRC_C
//	class 1  0, 2    MeterTest       Control 36, Manufacturer 8; not encrypted
//	class 1  1       MeterTest       Control 28, Manufacturer 16; not encrypted
//	class 1  6..10   MeterTest       as 1, proprietary
//	class 1  11..15  MeterTest       as 0, proprietary
//	class 2  3,4,8,9 KeySection      a part of a new decoder key
//	class 2  others  Management      RND 4, TID 24, Value 16
//
// Other combinations are reserved: ErrReserved.
//
// The check field is a CRC of 16 bits, polynomial x^16+x^15+x^2+1, bits
// reflected, initial value FFFF, no final inversion, stored low byte first. It
// covers Class, SubClass and body, padded on the left to 7 bytes; for currency
// credit one byte 01 follows (CRC_C).
//
// # Amounts
//
// Amount16 and Amount20 are decimal floating point. Encoding rounds in the
// customer's favour: to the next amount that the field can express and that is
// not below the request. What the meter will credit is Amount16.Units and
// Amount20.Currency; report that as the amount issued. Amounts that arrive as
// binary floating point go through UnitsOfFloat or CurrencyOfFloat, which remove
// binary dust first.
//
// # Time
//
// A TID counts minutes from the BaseDate of the vending key. Minute 00:01 UTC of
// each day is reserved for special tokens. The KEN limits the TIDs of a key. That
// no two tokens of a meter share a TID is up to the caller, who has the memory.
//
// # Key change
//
// KeyChange splits into two, three or four KeySections, all encrypted under the
// old key (Engine.KeyChangeTokens). On the meter's side KeySections collects
// them in any order.
//
// # Cipher variants
//
// STA (EA07) and MISTY1 (EA11) exist twice with the same results: ConstantTime,
// the default, and TableDriven; see Variant for when to choose which. DKGA04 and
// the check values use SHA-256 and MISTY1 without secret-dependent access in
// either variant, DKGA02 a DES of this package with the same property. Three
// things remain that depend on values: formatting, parsing and the ranges of
// amounts take time that depends on the token, which is about to be published;
// the key type chooses a branch; and on processors without a constant-time
// variable shift or POPCNT the guarantee does not hold.
//
// # Speed
//
// Measured with conformance/cmd/bench on one core at about 3.7 GHz with SHA
// instructions, in nanoseconds: a credit token under EA11 and DKGA04 from the
// vending key 295 table-driven and 890 constant-time, from a cached decoder key
// 145; EA07 and DKGA04 270 and 450; EA07 and DKGA02 450; STA block 80 and 265;
// MISTY1 key schedule and block 105 and 690; two SHA-256 compressions 105.
// Restoring a saved hash state (65 a hash) beat cloning a hash, which allocates.
//
// # What no public source confirms
//
// Each of these is one function, marked where it stands: the layout of the third
// section of a three-token EA07 key change; the position of FlagIndex in a
// ReadExtendedToken control field other than flag 0; the check values of 160-bit
// vending keys and 128-bit decoder keys; manufacturer codes other than 0; the
// layout of proprietary class 2 tokens; key derivation for key types other than
// DUTK; some transitions of PermitsKeyChange; the Record2 form of an unused date
// of expiry. DKGA01, DKGA03 and EA09 (DES tokens) are not built.
//
// # Tests
//
// The tests make and read every token of conformance/vectors/sts-tokens.json
// with both variants, repeat the worked examples of the standards, compare each
// part with the standard library or unbounded arithmetic, and cover 99.8 % of
// the statements. Not reached are the methods that seal the Message interface,
// the panic of a broken built-in table set, and the error return of
// KeyChangeTokens for a section that Sections made and Encode would refuse.
package sts
