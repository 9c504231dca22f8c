package registry

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// How long an attempt may take, and the pause before the next. A leader that died
// with our request is never going to answer it; another is elected within a second
// or two, and an attempt soon after that is for that one. A store that is slow gets
// longer attempts later on.
const (
	firstAttempt  = 500 * time.Millisecond
	firstAttempts = 4
	lastAttempt   = 5 * time.Second
	firstPause    = 10 * time.Millisecond
	lastPause     = 250 * time.Millisecond
)

// What an attempt may find: a claim that is ours under another revision, one that
// is not what was read before, and none.
var (
	errOnceMore  = errors.New("the claim was renewed meanwhile")
	errMeanwhile = errors.New("the claim changed meanwhile")
	errLapsed    = errors.New("the claim has lapsed")
)

// persist calls fn until it succeeds, fails for good or ctx ends. Errors that say
// nothing else have kind Unavailable.
func persist(ctx context.Context, what string, fn func(context.Context) error) error {
	if ctx.Err() != nil {
		return unavailable(what, context.Cause(ctx))
	}
	patience, pause := firstAttempt, firstPause
	for n := 1; ; n++ {
		err := attempt(ctx, patience, fn)
		var said *errkind.Error
		switch {
		case err == nil:
			return nil
		case errors.As(err, &said) && said.Kind != errkind.Unavailable:
			return err
		case !passing(err) || ctx.Err() != nil:
			return unavailable(what, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return unavailable(what, err)
		}
		pause = min(2*pause, lastPause)
		if n >= firstAttempts {
			patience = min(2*patience, lastAttempt)
		}
	}
}

func attempt(ctx context.Context, patience time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return fn(ctx)
}

// passing reports whether err may be gone at the next attempt.
func passing(err error) bool {
	if errors.Is(err, errOnceMore) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	code := status.Code(err)
	var said rpctypes.EtcdError
	if errors.As(err, &said) {
		code = said.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return true
	}
	return false
}

func unavailable(what string, err error) error {
	return errkind.Errorf(errkind.Unavailable, "%s: registry: %w", what, err)
}
