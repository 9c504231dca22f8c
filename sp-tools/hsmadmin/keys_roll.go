package hsmadmin

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

func (t tool) keysRoll() *cli.Command {
	return &cli.Command{
		Name: "roll", Usage: "change the client keys of all services on all enrolled HSMs",
		Flags: common(),
		Action: t.with(func(k *call, _ []string) error {
			return console.Failed("roll keys", k.rollKeys(k.next))
		}),
	}
}

// rollKeys installs new keys in every unit and uses them from then on. The new
// keys are stored before the first unit learns of them, and kept beside the
// present ones until the last unit has them: an interrupted roll is finished by
// another.
func (k *call) rollKeys(key keyFor) error {
	units, err := k.units()
	if err != nil {
		return err
	}
	var services []string
	for i, u := range units {
		err := k.onAdmin(u, func(ctx context.Context, admin *sshadmin.SshAdminClient) error {
			names, err := k.install(ctx, u, admin, key)
			services = append(services, names...)
			return err
		})
		if err != nil {
			return errkind.Errorf(errkind.Of(err), "HSM %s: %w; %d of %d HSMs have the new keys, run the command again to finish", u.ESN, err, i, len(units))
		}
	}
	slices.Sort(services)
	for _, s := range slices.Compact(services) {
		if !k.home.HasNext(enrol.Platform, s) {
			continue
		}
		if err := k.home.UseNext(enrol.Platform, s); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(k.env.Stdout, "New keys are in use on %d HSM(s). Back up the sshadmin key with 'hsmadmin keys backup'.\n", len(units))
	return err
}
