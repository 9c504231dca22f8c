package sshrpc

import (
	"errors"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/failure"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// internalText is all a client learns about a defect; the log has the rest.
const internalText = "the service failed inside; its log says why"

// Failure returns err as it crosses the wire. A handler need not call it: the
// server does, and logs what it withholds.
func Failure(err error) error {
	if err == nil {
		return nil
	}
	var f *failure.Failure
	if errors.As(err, &f) {
		return f
	}
	kind := errkind.Of(err)
	if kind == errkind.Internal {
		return &failure.Failure{Kind: kind.String(), Message: internalText}
	}
	return &failure.Failure{Kind: kind.String(), Message: err.Error()}
}

// FromFailure returns what a call reported as an error with its kind. Other
// errors pass unchanged. A client of this package has already done so.
func FromFailure(err error) error {
	var f *failure.Failure
	if errors.As(err, &f) {
		return errkind.Errorf(errkind.Parse(f.Kind), "%s", f.Message)
	}
	return err
}
