package hsmadmin

import (
	"context"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	"github.com/tesserae-hsm/tesserae/tenant/access"
)

// restartPause is between two looks at a platform that starts over.
const restartPause = 100 * time.Millisecond

// restart asks for what makes the platform of u start over, and waits until its
// services answer again, for no longer than --timeout.
func (k *call) restart(u unitfile.Unit, ask func(ctx context.Context, s *setup.SetupClient) error) error {
	var asked bool
	err := k.onSetup(u, func(ctx context.Context, s *setup.SetupClient) error {
		if err := ask(ctx, s); err != nil {
			return err
		}
		asked = true
		return k.untilGone(s)
	})
	if !asked || err != nil {
		return err
	}
	return k.untilBack(u)
}

// untilGone waits for the end of the platform that s is connected to.
func (k *call) untilGone(s *setup.SetupClient) error {
	ctx, cancel := k.context()
	defer cancel()
	for {
		if _, err := s.Info(ctx); err != nil && ctx.Err() == nil {
			return nil
		}
		if !pause(ctx, restartPause) {
			return errkind.Errorf(errkind.Unavailable, "it was accepted, but the services did not restart within %s; look with 'hsmadmin status'", k.timeout)
		}
	}
}

// untilBack waits until the platform accepts this host's key or, having
// forgotten it, refuses it.
func (k *call) untilBack(u unitfile.Unit) error {
	ctx, cancel := k.context()
	defer cancel()
	for {
		conn, err := access.DialUnit(ctx, k.home, u, platform.Setup, k.timeout)
		switch {
		case err == nil:
			_ = conn.Close()
			return nil
		case errkind.Is(err, errkind.Unauthorised):
			return nil
		case !errkind.Is(err, errkind.Unavailable):
			return err
		}
		if !pause(ctx, restartPause) {
			return errkind.Errorf(errkind.Unavailable,
				"it was done, but the services did not answer again within %s; look with 'hsmadmin status': %w", k.timeout, err)
		}
	}
}

// pause reports whether ctx went on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
