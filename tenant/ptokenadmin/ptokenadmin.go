// Package ptokenadmin is the tool of a VCM's tenant for its token service:
// users, preferences, KMC keys, vending keys, licences, certificates, tokens.
// One command a file. It speaks to the VCM's SSH service "prismtoken".
package ptokenadmin

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/tenant/access"
)

const service = "prismtoken"

// maxText bounds the files that are sent: a KLF of a thousand keys fits.
const maxText = 2 << 20

// App returns the tool.
func App(env *console.Env) *cli.App {
	t := tool{env}
	group := func(name, usage string, commands ...*cli.Command) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, Subcommands: commands}
	}
	return &cli.App{
		Name: "ptokenadmin", Usage: "administer the token service of your VCM", Version: console.Version(),
		Action: console.Group,
		Commands: []*cli.Command{
			t.status(),
			group("user", "users of the token service", t.userCreate(), t.userList(), t.userShow(), t.userSetPassword(),
				t.userChange(), t.userUnlock(), t.userDelete(), t.userRoles()),
			group("pref", "preferences", t.prefList(), t.prefSet()),
			group("kmc", "keys of Key Management Centres", t.kmcUploadKey(), t.kmcList(), t.kmcGenerateRequest(), t.kmcFetchRequest(),
				t.kmcUploadKLF(), t.kmcLoadAll(), t.kmcEndSession(), t.kmcDeleteSlot(), t.kmcApprovalRoot(), t.kmcUploadApprovals()),
			group("vk", "vending keys", t.vkList(), t.vkShow(), t.vkLoad(), t.vkDelete()),
			group("license", "transaction licences", t.licenseLoad()),
			group("sm", "the security module", t.smStatus(), t.smPublicKey(), t.smLoadTables()),
			group("conductor", "the low-level API of the security module", t.conductorShow(), t.conductorRestart()),
			group("maintenance", "maintenance mode: no tokens, and the provider may stop the VCM", t.maintenanceShow(),
				t.maintenanceSet("on", "end issuing tokens, so that the provider can stop the VCM", true),
				t.maintenanceSet("off", "issue tokens again", false)),
			group("tls", "the certificate of the token service", t.tlsCertificate(), t.tlsGenerate(), t.tlsImport()),
			group("token", "issue and check tokens", t.tokenCredit(), t.tokenMSE(), t.tokenKCT(), t.tokenTest(), t.tokenVerify(), t.tokenFetch()),
		},
	}
}

type tool struct{ env *console.Env }

func common(flags ...cli.Flag) []cli.Flag {
	return append(flags, &cli.StringFlag{Name: "uuid", Usage: "UUID of the VCM; may be left out if only one is enrolled"},
		console.TimeoutFlag(), console.JSONFlag(), console.VerboseFlag())
}

// session does fn with the VCM's service. Each call of fn has the whole time-out.
func (t tool) session(c *cli.Context, what string, fn func(ctx context.Context, p *prismadmin.PrismAdminClient) error) error {
	timeout, err := console.Timeout(c)
	if err != nil {
		return err
	}
	home, err := access.Home(t.env)
	if err != nil {
		return err
	}
	vcm, err := home.VCM(c.String("uuid"))
	if err != nil {
		return err
	}
	t.env.Logger(c).Debug("connect", "vcm", vcm.UUID, "service", service)
	conn, err := access.DialVCM(c.Context, home, vcm, service, timeout)
	if err != nil {
		return console.Failed(what, err)
	}
	defer conn.Close()
	return console.Failed(what, fn(c.Context, prismadmin.NewPrismAdminClient(conn.Thrift())))
}

// command is a verb with its arguments' names; act gets exactly those.
func command(name, usage string, args []string, flags []cli.Flag, act func(c *cli.Context, args []string) error) *cli.Command {
	line := ""
	for i, a := range args {
		if i > 0 {
			line += " "
		}
		line += a
	}
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: line, Flags: common(flags...),
		Action: func(c *cli.Context) error {
			given, err := console.NArgs(c, args...)
			if err != nil {
				return err
			}
			return act(c, given)
		},
	}
}

func stamp(unix int64) string {
	if unix == 0 {
		return "never"
	}
	return time.Unix(unix, 0).UTC().Format(time.RFC3339)
}

// parseTime reads an option that is a date, a time or "never"; 0 is never.
func parseTime(option, text string) (int64, error) {
	if text == "never" {
		return 0, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.Unix(), nil
		}
	}
	return 0, console.Usagef("--%s %q is no date (2026-12-31), time (2026-12-31T12:00:00Z) or never", option, text)
}
