// Package errkind is the closed list of what can be wrong.
//
// Inside Tesserae an error is data: a kind, and a text that says what was
// wrong, where, and what to do. Each edge (Thrift, the SM API, SSH, the exit
// code of a command) has one table from kind to its own form, and a test that
// the table is complete.
package errkind

import (
	"errors"
	"fmt"
)

// Kind classifies an error. The numbers travel on the wire: append only.
type Kind uint8

const (
	// Internal is a defect or an unexpected failure of the machine.
	Internal Kind = iota
	// Invalid is input that can never succeed: malformed or out of range.
	Invalid
	// Refused is a policy, a signature's validity window or a request that says no.
	Refused
	// Unauthorised is a missing or insufficient proof of identity.
	Unauthorised
	// NotFound is also the answer for another tenant's object.
	NotFound
	// Limit is a licence, a quota or a capacity.
	Limit
	// Mode is an operation in the wrong state; another state would allow it.
	Mode
	// Integrity is a signature, MAC, check value or chain that does not match.
	Integrity
	// Unavailable is safe to try again.
	Unavailable

	numKinds
)

var names = [numKinds]string{
	Internal: "internal", Invalid: "invalid", Refused: "refused",
	Unauthorised: "unauthorised", NotFound: "not found", Limit: "limit",
	Mode: "wrong mode", Integrity: "integrity", Unavailable: "unavailable",
}

// String returns the kind's name as it appears in logs and on the wire.
func (k Kind) String() string {
	if k < numKinds {
		return names[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Parse returns the kind of a name that String made; unknown names are Internal,
// so that a newer peer's kind is never mistaken for a weaker one.
func Parse(name string) Kind {
	for k, n := range names {
		if n == name {
			return Kind(k)
		}
	}
	return Internal
}

// All returns every kind, for tests that an edge's table is complete.
func All() []Kind {
	out := make([]Kind, numKinds)
	for i := range out {
		out[i] = Kind(i)
	}
	return out
}

// Error is an error with a kind.
type Error struct {
	Kind Kind
	err  error
}

func (e *Error) Error() string { return e.err.Error() }

// Unwrap gives errors.Is and errors.As the cause.
func (e *Error) Unwrap() error { return errors.Unwrap(e.err) }

// Errorf makes an error of kind k; %w wraps a cause as in fmt.Errorf.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, err: fmt.Errorf(format, args...)}
}

// Of returns the kind of the outermost *Error in err's chain, Internal if none.
func Of(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && Of(err) == k }

// ExitCode is the one table from kind to a command's exit code.
func (k Kind) ExitCode() int {
	switch k {
	case Invalid:
		return 2
	case Refused, Unauthorised, Mode:
		return 3
	case NotFound:
		return 4
	case Unavailable:
		return 5
	case Limit:
		return 6
	case Integrity:
		return 7
	default:
		return 1
	}
}
