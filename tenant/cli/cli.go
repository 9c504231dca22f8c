// Package cli is "hsmadmin vcm": what a tenant does about its VCM, one command
// a file. Requests are files for the service provider; the other commands speak
// to the VCM's own services.
package cli

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

// Names of a VCM's SSH services that take a key of the tenant.
const (
	ServiceSSHAdmin   = "sshadmin"
	ServiceMonitor    = "monitor"
	ServicePrismToken = "prismtoken"
	ServiceConductor  = "conductor"
)

// Command returns the group of commands, with more commands of the tool that
// includes it.
func Command(env *console.Env, more ...*cli.Command) *cli.Command {
	t := tool{env}
	return &cli.Command{
		Name: "vcm", Usage: "manage your VCMs as their tenant",
		Subcommands: append([]*cli.Command{
			t.create(), t.start(), t.setProperties(), t.useRequestKey(), t.inspectRequest(), t.enroll(), t.unenroll(), t.info(), t.envStats(),
			t.logs(), t.remoteSet(), t.remoteRemove(),
		}, more...),
	}
}

type tool struct{ env *console.Env }

func uuidFlag(usage string) cli.Flag { return &cli.StringFlag{Name: "uuid", Usage: usage} }

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Usage: "the VCM's configuration file, if it is not enrolled"}
}

func makerRootFlag() cli.Flag {
	return &cli.StringFlag{Name: "maker-root", Usage: "the maker's public key, to be pinned; needed the first time"}
}

// online adds the flags of commands that talk to a VCM.
func online(flags ...cli.Flag) []cli.Flag {
	return append(flags, console.TimeoutFlag(), console.JSONFlag(), console.VerboseFlag())
}

// call is one command's business with enrolled VCMs.
type call struct {
	tool
	c       *cli.Context
	home    *enrol.Home
	timeout time.Duration
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
	return &call{tool: t, c: c, home: home, timeout: timeout}, nil
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

// selected returns the VCM of --uuid, or all enrolled ones.
func (k *call) selected() ([]*vcmfile.File, error) {
	if id := k.c.String("uuid"); id != "" {
		f, err := k.home.VCM(id)
		return []*vcmfile.File{f}, err
	}
	all, err := k.home.VCMs()
	if err == nil && len(all) == 0 {
		err = errkind.Errorf(errkind.NotFound, "no VCM is enrolled on this host; see 'hsmadmin vcm enroll'")
	}
	return all, err
}

// context bounds one exchange with a service.
func (k *call) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(k.c.Context, k.timeout)
}
