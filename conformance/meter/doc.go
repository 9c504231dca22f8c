// Package meter is a virtual STS payment meter: the judge of every token that
// the project issues.
//
// A meter holds one decoder key and the attributes that came with it, and
// nothing that could issue: [Meter.Enter] takes twenty digits and answers as the
// standard's TokenResult does, changing the registers only when it accepts. The
// bits of a token are read by hsm/sts; every rule below is the meter's own, so
// that a fault of the issuing side cannot excuse itself here.
//
// # Order of checks
//
// A token is checked in this order and the first failure is the answer:
//
//  1. twenty digits below 2^66, otherwise an error and no answer at all;
//  2. CRC after decryption under the current key ([CRCError]); class 1 is not encrypted;
//  3. class and subclass known ([FunctionError]); manufacturer code of class 1 ([ManufacturerError]);
//  4. class 0 under a default key ([DDTKError]);
//  5. (TID >> 16) > KEN ([KeyExpiredError]; KEN 255 never expires);
//  6. TID older than the oldest of the memory ([OldError]);
//  7. TID in the memory ([UsedError]);
//  8. the value: [RangeError], [FormatError], [OverflowError].
//
// A field that the standard does not define ([RangeError]) is found before 4.
//
// A rejected token changes nothing; in particular its TID is not remembered. One
// exception: the section that completes a set which can never be applied drops
// the held sections.
//
// # TID memory
//
// Fifty TIDs. A new meter's memory holds the time of manufacture fifty times;
// an accepted TID displaces the smallest entry. A key change whose rollover bit
// is set fills the memory with zeros, because the TIDs of the new base date
// begin again.
//
// # Key changes
//
// The sections of a set (subclasses 3 and 4; also 8 for EA07 with the 3KCT bit;
// also 8 and 9 for EA11) are taken in any order and held until the set is whole,
// then applied at once. Held sections lapse [SetLifetime] after the last one
// entered. A section that differs from the held one of the same subclass begins
// a new set: it is held and all others are dropped. Entering the identical
// section again is accepted and changes nothing. Tokens of other kinds neither
// need nor disturb a held set. KEN, KRN, KT, TI and SGC take the set's values; a
// two-token set carries no SGC and leaves it.
//
// Key types: an initialisation or default key may be followed by a default,
// unique or common key; a unique key by a unique or default key; a common key by
// a common key. Nothing returns to an initialisation key, and a
// common key needs token carrier type 01 ([KeyTypeError]). A rollover that brings
// the key the meter already holds would make used tokens good again and is
// refused ([FormatError]).
//
// # Base date
//
// No token names the base date; the meter knows it from its configuration only
// to print a TID as a time. A rollover from 2014 leads to 2035; one from 1993
// leaves the base date unknown (0), and so does one from an unknown base date.
package meter
