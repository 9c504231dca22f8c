// Package vcmadmin is the service provider's tool for VCMs: one command a file.
// It speaks to the orchestrator service of every enrolled unit.
package vcmadmin

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

// App returns the tool.
func App(env *console.Env) *cli.App {
	t := tool{env}
	return &cli.App{
		Name: "vcmadmin", Usage: "manage the VCMs of your HSMs", Version: console.Version(),
		Action: console.Group,
		Commands: []*cli.Command{
			t.create(), t.start(), t.stop(), t.list(), t.show(), t.remove(), t.stats(),
			{Name: "properties", Usage: "manage the properties of VCMs", Subcommands: []*cli.Command{t.propertiesSet(), t.propertiesList()}},
		},
	}
}

type tool struct{ env *console.Env }

// margin is how much longer the connection waits than the service was told to,
// so that the service's own answer about a time-out arrives.
const margin = 2 * time.Second

func esnFlag(usage string) cli.Flag { return &cli.StringFlag{Name: "esn", Usage: usage} }

func common(flags ...cli.Flag) []cli.Flag {
	return append(flags, console.TimeoutFlag(), console.JSONFlag(), console.VerboseFlag())
}

// call is one command's business with the units.
type call struct {
	tool
	c       *cli.Context
	ctx     context.Context
	home    *enrol.Home
	timeout time.Duration
	aside   func(error) // tells of an error that is not the command's result
}

func (t tool) begin(c *cli.Context) (*call, error) {
	timeout, err := console.Timeout(c)
	if err != nil {
		return nil, err
	}
	home, err := access.Home(t.env)
	if err != nil {
		return nil, err
	}
	aside := func(err error) { fmt.Fprintf(t.env.Stderr, "ERROR: %s\n", err) }
	return &call{tool: t, c: c, ctx: c.Context, home: home, timeout: timeout, aside: aside}, nil
}

// with is the action of a command with the arguments that names say.
func (t tool) with(fn func(k *call, args []string) error, names ...string) cli.ActionFunc {
	return func(c *cli.Context) error {
		args, err := console.NArgs(c, names...)
		if err != nil {
			return err
		}
		k, err := t.begin(c)
		if err != nil {
			return err
		}
		return fn(k, args)
	}
}

func (k *call) seconds() int32 { return int32(k.timeout / time.Second) }

// on does fn with the orchestrator of one unit, within the time-out.
func (k *call) on(u unitfile.Unit, fn func(ctx context.Context, h *platform.Hosting) error) error {
	ctx, cancel := context.WithTimeout(k.ctx, k.timeout+margin)
	defer cancel()
	k.env.Logger(k.c).Debug("connect", "esn", u.ESN, "service", platform.Orchestrator)
	h, err := platform.Dial(ctx, k.home, u, k.timeout)
	if err != nil {
		return err
	}
	defer h.Close()
	return fn(ctx, h)
}

// each does fn with every selected unit. One that fails does not keep the others
// from being asked; answered says that there is something to print besides err.
func (k *call) each(fn func(ctx context.Context, h *platform.Hosting) error) (answered bool, err error) {
	units, err := platform.Units(k.home, k.c.String("esn"))
	if err != nil {
		return false, err
	}
	for _, u := range units {
		one := k.on(u, fn)
		if one == nil {
			answered = true
			continue
		}
		if k.ctx.Err() != nil {
			return answered, one
		}
		if err != nil { // the last one is the command's own
			k.aside(err)
		}
		err = one
		if len(units) > 1 {
			err = errkind.Errorf(errkind.Of(one), "HSM %s: %w", u.ESN, one)
		}
	}
	return answered, err
}

// owner does fn with the unit that has the VCM, and the VCM.
func (k *call) owner(id string, fn func(ctx context.Context, h *platform.Hosting, v *orchestrator.Vcm) error) error {
	id, err := console.UUID(id)
	if err != nil {
		return err
	}
	units, err := platform.Units(k.home, k.c.String("esn"))
	if err != nil {
		return err
	}
	var silent error // a unit that may have it and cannot be asked
	for _, u := range units {
		err := k.on(u, func(ctx context.Context, h *platform.Hosting) error {
			v, err := h.Show(ctx, id)
			if err != nil {
				return err
			}
			return found{fn(ctx, h, v)}
		})
		if f, ok := err.(found); ok {
			return f.err
		}
		switch {
		case len(units) == 1:
			return err
		case !errkind.Is(err, errkind.NotFound):
			silent = errkind.Errorf(errkind.Of(err), "HSM %s, which may have VCM %s: %w", u.ESN, id, err)
		}
	}
	if silent != nil {
		return silent
	}
	return errkind.Errorf(errkind.NotFound, "no enrolled HSM has a VCM %s", id)
}

// found carries the result of the unit that has the VCM past the search.
type found struct{ err error }

func (f found) Error() string { return "found" }

func (t tool) readRequest(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	return t.env.ReadFile(path, armor.MaxSize)
}
