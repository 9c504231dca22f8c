package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// embeddedEtcd is the value of --etcd-endpoints for a registry of our own.
const embeddedEtcd = "embedded"

// options are the command's flags. There is no configuration file.
type options struct {
	state     string
	hsmSocket string
	etcd      string
	etcdCA    string
	etcdCert  string
	etcdKey   string
	network   string
	listen    string
	metrics   string
	vcmd      string
	floor     string
	uidBase   int
	pause     time.Duration
	grace     time.Duration
	logLevel  string
}

func runCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run until SIGTERM",
		Description: "The line 'orchestratord: ready ...' on standard output says that every service listens\n" +
			"and where the unit file is. All ports are free ones unless the state folder remembers others.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state", Required: true, Usage: "folder of records, logs and VCM data"},
			&cli.StringFlag{Name: "hsm-socket", Required: true, Usage: "socket of hsmd"},
			&cli.StringFlag{Name: "etcd-endpoints", Value: embeddedEtcd, Usage: "endpoints of an etcd cluster, separated by commas, or 'embedded'"},
			&cli.StringFlag{Name: "etcd-ca", Usage: "certificates that the cluster's are signed by, PEM"},
			&cli.StringFlag{Name: "etcd-cert", Usage: "client certificate for the cluster, PEM"},
			&cli.StringFlag{Name: "etcd-key", Usage: "its private key, PEM"},
			&cli.StringFlag{Name: "network", Usage: "loopback network of the VCMs in CIDR form (default: all of 127.77.0.0/16); see 'hsmadmin setnetwork' for real ones"},
			&cli.StringFlag{Name: "listen", Value: "127.0.0.1", Usage: "IP address of the platform's services"},
			&cli.StringFlag{Name: "metrics", Value: "127.0.0.1:0", Usage: "loopback address for Prometheus metrics, or 'off'"},
			&cli.StringFlag{Name: "vcmd", Usage: "the vcmd program (default: beside this one)"},
			&cli.StringFlag{Name: "isolation-floor", Value: launch.Rootless, Usage: "weakest isolation of a VCM: " + strings.Join(launch.Levels(), ", ")},
			&cli.IntFlag{Name: "uid-base", Usage: "first of 1000 uids for VCMs, used as root only (default: a range that depends on the ESN)"},
			&cli.DurationFlag{Name: "restart-pause", Value: launch.DefaultPolicy().Again, Usage: "longest pause before a VCM that served and was lost is started again"},
			&cli.DurationFlag{Name: "orphan-grace", Usage: "how long VCMs serve on when this program was killed and is not started again; 0 is for good"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "debug, info, warn, error"},
			&cli.BoolFlag{Name: "check-config", Usage: "check the options, print the effective ones and exit"},
		},
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			o, log, err := readOptions(env, c)
			if err != nil {
				return err
			}
			if c.Bool("check-config") {
				o.print(env)
				return nil
			}
			d := &daemon{options: o, log: log, stdout: env.Stdout, version: c.App.Version}
			return d.run(c.Context)
		},
	}
}

func readOptions(env *console.Env, c *cli.Context) (options, *slog.Logger, error) {
	o := options{
		hsmSocket: c.String("hsm-socket"), etcd: c.String("etcd-endpoints"),
		etcdCA: c.String("etcd-ca"), etcdCert: c.String("etcd-cert"), etcdKey: c.String("etcd-key"),
		network: c.String("network"), listen: c.String("listen"), metrics: c.String("metrics"), vcmd: c.String("vcmd"),
		floor: c.String("isolation-floor"), uidBase: c.Int("uid-base"), pause: c.Duration("restart-pause"), grace: c.Duration("orphan-grace"), logLevel: c.String("log-level"),
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return o, nil, console.Usagef("--log-level %q is none of debug, info, warn, error", o.logLevel)
	}
	log := slog.New(slog.NewTextHandler(env.Stderr, &slog.HandlerOptions{Level: level}))
	var err error
	if o.state, err = filepath.Abs(c.String("state")); err != nil {
		return o, nil, console.Usagef("--state: %w", err)
	}
	return o, log, o.check()
}

func (o *options) check() error {
	if _, err := network.DefaultNetwork(o.network, ""); err != nil {
		return err
	}
	if _, err := netip.ParseAddr(o.listen); err != nil {
		return console.Usagef("--listen %q is not an IP address", o.listen)
	}
	if o.metrics != "off" {
		a, err := netip.ParseAddrPort(o.metrics)
		if err != nil || !a.Addr().IsLoopback() {
			return console.Usagef("--metrics %q is neither 'off' nor a loopback address with a port", o.metrics)
		}
	}
	if launch.Below(o.floor, launch.Plain) {
		return console.Usagef("--isolation-floor %q is none of %s", o.floor, strings.Join(launch.Levels(), ", "))
	}
	if o.uidBase < 0 || o.uidBase > 1<<31-2000 {
		return console.Usagef("--uid-base %d leaves no room for 1000 uids", o.uidBase)
	}
	if least := launch.DefaultPolicy().First; o.pause < least {
		return console.Usagef("--restart-pause %s is shorter than %s", o.pause, least)
	}
	if o.grace < 0 {
		return console.Usagef("--orphan-grace %s is negative; wanted is how long, like 10m, or 0 for good", o.grace)
	}
	if o.etcd == embeddedEtcd && o.etcdCA+o.etcdCert+o.etcdKey != "" {
		return console.Usagef("--etcd-ca, --etcd-cert and --etcd-key are for an external cluster; see --etcd-endpoints")
	}
	if (o.etcdCert == "") != (o.etcdKey == "") {
		return console.Usagef("--etcd-cert and --etcd-key belong together")
	}
	return o.findVCMD()
}

func (o *options) findVCMD() error {
	if o.vcmd == "" {
		self, err := os.Executable()
		if err != nil {
			return console.Usagef("--vcmd is needed: %w", err)
		}
		o.vcmd = filepath.Join(filepath.Dir(self), "vcmd")
	}
	if st, err := os.Stat(o.vcmd); err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return errkind.Errorf(errkind.Invalid, "the VCM program %s is not an executable file; see --vcmd", o.vcmd)
	}
	return nil
}

func (o *options) print(env *console.Env) {
	n, _ := network.DefaultNetwork(o.network, "")
	console.Fields(env.Stdout,
		[2]string{"state", o.state},
		[2]string{"hsm-socket", o.hsmSocket},
		[2]string{"etcd-endpoints", o.etcd},
		[2]string{"network", n.String()},
		[2]string{"listen", net.JoinHostPort(o.listen, "*")},
		[2]string{"metrics", o.metrics},
		[2]string{"vcmd", o.vcmd},
		[2]string{"isolation-floor", o.floor},
		[2]string{"uid-base", orText(o.uidBase, "by ESN")},
		[2]string{"restart-pause", o.pause.String()},
		[2]string{"orphan-grace", orForGood(o.grace)},
		[2]string{"log-level", o.logLevel},
	)
}

func orText(n int, zero string) string {
	if n == 0 {
		return zero
	}
	return fmt.Sprint(n)
}

func orForGood(d time.Duration) string {
	if d == 0 {
		return "0 (for good)"
	}
	return d.String()
}
