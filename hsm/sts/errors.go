package sts

import "errors"

// The error kinds of this package. Every error returned is one of these or an
// *Error that wraps one, so callers choose with errors.Is.
var (
	// ErrFormat: a text is not of the documented form (length, characters,
	// separators, JSON).
	ErrFormat = errors.New("sts: malformed")
	// ErrCheckDigit: a Luhn digit of a DRN or MeterPAN does not fit.
	ErrCheckDigit = errors.New("sts: bad check digit")
	// ErrRange: a value does not fit the field that carries it, or a field of a
	// received token holds a value the standard does not define.
	ErrRange = errors.New("sts: value out of range")
	// ErrCRC: the check field of a token does not fit: mistyped digits, another
	// meter's token, or the wrong decoder key.
	ErrCRC = errors.New("sts: token CRC mismatch")
	// ErrReserved: the class and subclass are reserved or have no coding here.
	ErrReserved = errors.New("sts: reserved token class or subclass")
	// ErrDDTKCredit: class 0 under a default decoder key (key type 1).
	ErrDDTKCredit = errors.New("sts: credit token under a default key")
	// ErrKey: a key has the wrong length or parity, or does not suit the
	// algorithm or the key type that was asked for.
	ErrKey = errors.New("sts: unsuitable key")
	// ErrTables: an STA table set is not well formed.
	ErrTables = errors.New("sts: bad STA tables")
	// ErrKeyChange: key-change sections do not belong together, or the standard
	// does not permit the change.
	ErrKeyChange = errors.New("sts: key change refused")
	// ErrBeforeBaseDate: the time lies before the base date of the key.
	ErrBeforeBaseDate = errors.New("sts: time before base date")
	// ErrExpired: the TID exceeds the key expiry number, or its 24 bits.
	ErrExpired = errors.New("sts: key expired")
)

// Error adds to an error kind the data element it is about and what is wrong
// with it. It never contains key material.
type Error struct {
	Kind   error  // one of the Err values
	Field  string // data element in the standard's spelling, such as "KRN"
	Detail string // what was found and what is expected
}

// Error returns kind, field and detail in one line.
func (e *Error) Error() string {
	return e.Kind.Error() + ": " + e.Field + ": " + e.Detail
}

// Unwrap returns the kind, for errors.Is.
func (e *Error) Unwrap() error { return e.Kind }

func fail(kind error, field, detail string) error {
	return &Error{Kind: kind, Field: field, Detail: detail}
}
