package platform

import (
	"context"

	api "github.com/tesserae-hsm/tesserae/internal/api/gen/updater"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

type updaterService struct{ call }

func (s updaterService) Info(context.Context) (*api.Firmware, error) {
	id := s.p.cfg.Identity
	return &api.Firmware{FirmwareId: id.FirmwareID, HardwareId: id.HardwareID, Version: s.p.cfg.Version}, nil
}

// Upgrade is refused: the emulated unit's firmware is the installed software,
// which the host's own package management replaces while the unit is down.
func (s updaterService) Upgrade(context.Context, []byte) error {
	return errkind.Errorf(errkind.Mode, "there are no firmware packages for this unit, its firmware is the installed software, which cannot be upgraded while the unit runs: stop hsmd and orchestratord, install the new version, start them again")
}

type launcherService struct{}

func (launcherService) Launch(context.Context, []byte) error {
	return errkind.Errorf(errkind.Refused, "the launcher service is not supported in multi-tenant systems")
}
