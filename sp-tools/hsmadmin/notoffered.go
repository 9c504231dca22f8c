package hsmadmin

import (
	"os"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// present refuses a file that is not there, which is the first thing to know.
func present(path string) error {
	if _, err := os.Stat(path); err != nil {
		return errkind.Errorf(errkind.NotFound, "%w", err)
	}
	return nil
}

// notOffered is a command of the product that has nothing to act on here. It
// says why and what to use instead, so that scripts of others fail plainly.
func notOffered(name, why string, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, Usage: "refused: " + why, Flags: common(append(flags, esnFlag())...),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			return errkind.Errorf(errkind.Refused, "%s: %s", c.Command.HelpName, why)
		},
	}
}

func (t tool) setMinVSN() *cli.Command {
	return &cli.Command{
		Name: "setminvsn", Usage: "refused: the firmware is the installed software and has no VSN", ArgsUsage: "VSN", Flags: common(esnFlag()),
		Action: func(c *cli.Context) error {
			args, err := console.NArgs(c, "VSN")
			if err != nil {
				return err
			}
			if _, err := strconv.ParseUint(args[0], 10, 31); err != nil {
				return console.Usagef("VSN %q is not a number", args[0])
			}
			return errkind.Errorf(errkind.Refused, "%s: the firmware is the installed software and has no VSN; the host's package management decides what may replace it", c.Command.HelpName)
		},
	}
}

func (t tool) selectOptions() *cli.Command {
	return &cli.Command{Name: "select", Usage: "configuration options without a licence: there are none", Subcommands: []*cli.Command{
		notOffered("acceleration", "this HSM has no accelerators to select",
			&cli.StringFlag{Name: "set", Usage: "accelerator to use"}, &cli.BoolFlag{Name: "show", Usage: "show the accelerators"}),
	}}
}

func (t tool) codeSafe() *cli.Command {
	return &cli.Command{Name: "cs5", Usage: "CodeSafe 5: not supported in multi-tenant systems", Subcommands: []*cli.Command{
		notOffered("stats", "CodeSafe 5 is not supported in multi-tenant systems", &cli.StringFlag{Name: "u", Usage: "UUID of an SEE machine"}),
	}}
}

// unsignedLogs are the commands for logs without signatures.
func (t tool) unsignedLogs() []*cli.Command {
	which := func() cli.Flag { return &cli.StringFlag{Name: "log", Usage: "system or init"} }
	return []*cli.Command{
		notOffered("get", "the log is kept in signed form only; use 'hsmadmin logs export', and 'hsmadmin logs verify --print' to read it",
			which(), &cli.StringFlag{Name: "out", Usage: "file for the log"}),
		notOffered("clear", "a signed log is not cleared; use 'hsmadmin logs export' and 'hsmadmin logs expire'", which()),
	}
}
