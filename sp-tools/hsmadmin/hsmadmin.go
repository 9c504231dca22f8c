// Package hsmadmin is the tool for an HSM: its enrolment and keys, its licences
// and network for the service provider, and with "hsmadmin vcm" the tenant's
// side. One command a file.
package hsmadmin

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	tenantcli "github.com/tesserae-hsm/tesserae/tenant/cli"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

// App returns the tool.
func App(env *console.Env) *cli.App {
	t := tool{env}
	return &cli.App{
		Name: "hsmadmin", Usage: "manage your HSMs, and as a tenant your VCMs", Version: console.Version(),
		Action: console.Group,
		Commands: []*cli.Command{
			t.enroll(), t.status(), t.info(), t.envStats(), t.getTime(), t.setTime(), t.factoryState(),
			{Name: "keys", Usage: "manage the SSH keys of the HSM's services", Subcommands: []*cli.Command{
				t.keysShow(), t.keysRoll(), t.keysBackup(), t.keysRestore(), t.keysMigrate(), t.keysRemoteSet(), t.keysRemoteRemove(),
			}},
			t.fet(),
			{Name: "setnetwork", Usage: "set the network for VCMs; effective after 'hsmadmin reset'", Subcommands: []*cli.Command{
				t.networkDefault(), t.networkStatic("ipv4static", "IPv4"), t.networkStatic("ipv6static", "IPv6"),
			}},
			t.reset(), t.logs(),
			t.upgrade(), t.npkgInfo(), t.setMinVSN(), t.selectOptions(), t.codeSafe(),
			tenantcli.Command(env, t.singleSetup()),
		},
	}
}

type tool struct{ env *console.Env }

func esnFlag() cli.Flag { return &cli.StringFlag{Name: "esn", Usage: "ESN of the HSM that is meant"} }

func common(flags ...cli.Flag) []cli.Flag {
	return append(flags, console.TimeoutFlag(), console.JSONFlag(), console.VerboseFlag())
}

// call is one command's business with enrolled units.
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

func (k *call) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(k.c.Context, k.timeout)
}

// units are the ones that --esn selects, all without it.
func (k *call) units() ([]unitfile.Unit, error) { return platform.Units(k.home, k.c.String("esn")) }

// one is the unit that --esn selects, or the only one.
func (k *call) one() (unitfile.Unit, error) { return platform.One(k.home, k.c.String("esn")) }

func (k *call) onSetup(u unitfile.Unit, fn func(ctx context.Context, s *setup.SetupClient) error) error {
	ctx, cancel := k.context()
	defer cancel()
	conn, err := access.DialUnit(ctx, k.home, u, platform.Setup, k.timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(ctx, setup.NewSetupClient(conn.Thrift()))
}

func (k *call) onMonitor(u unitfile.Unit, fn func(ctx context.Context, m *monitor.MonitorClient) error) error {
	ctx, cancel := k.context()
	defer cancel()
	conn, err := access.DialUnit(ctx, k.home, u, platform.Monitor, k.timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(ctx, monitor.NewMonitorClient(conn.Thrift()))
}
