// Package console is what every command-line tool of Tesserae shares: where its
// input and output go, how results, tables and errors look, and how errors
// become exit codes. Commands themselves live one verb a file with their tool.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Env is a tool's world. Tests replace its fields; there are no globals.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Clock  clock.Clock
	Getenv func(string) string
}

// System is the environment of a real process.
func System() *Env {
	return &Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Clock: clock.System(), Getenv: os.Getenv}
}

// Main runs the tool that newApp builds with the process's arguments and exits
// with its code. An interrupt cancels the command's context.
func Main(newApp func(*Env) *cli.App) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env := System()
	code := env.Run(ctx, newApp(env), os.Args)
	stop()
	os.Exit(code)
}

// Run runs app and returns the exit code: 0 ok, 1 internal, 2 usage or bad
// input, 3 refused, 4 not found, 5 unavailable, 6 limit or licence, 7 integrity.
func (e *Env) Run(ctx context.Context, app *cli.App, args []string) int {
	app.Reader, app.Writer, app.ErrWriter = e.Stdin, e.Stdout, e.Stderr
	app.ExitErrHandler = func(*cli.Context, error) {} // Run decides, once
	app.HideVersion = app.Version == ""
	refuseUnknown(app.Name, app.Commands)
	app.OnUsageError = usageError
	app.CommandNotFound = nil
	err := app.RunContext(ctx, args)
	if err == nil {
		return 0
	}
	fmt.Fprintf(e.Stderr, "ERROR: %s\n", capital(err.Error()))
	var u usage
	if errors.As(err, &u) {
		return 2
	}
	return errkind.Of(err).ExitCode()
}

type usage struct{ error }

// Usagef is an error in how a command was called.
func Usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

func usageError(c *cli.Context, err error, _ bool) error {
	return Usagef("%s; see '%s --help'", err, c.Command.HelpName)
}

// refuseUnknown makes a group of commands refuse a word that is none of them,
// where the library would print help and exit 0.
func refuseUnknown(path string, cmds []*cli.Command) {
	for _, c := range cmds {
		c.OnUsageError = usageError
		checkRequired(c)
		if len(c.Subcommands) == 0 {
			continue
		}
		refuseUnknown(path+" "+c.Name, c.Subcommands)
		if c.Action == nil {
			c.Action = Group
		}
	}
}

// checkRequired makes a missing option a usage error in one line, where the
// library would print the whole help first.
func checkRequired(c *cli.Command) {
	var names []string
	for _, f := range c.Flags {
		switch f := f.(type) {
		case *cli.StringFlag:
			if f.Required {
				f.Required = false
				names = append(names, f.Name)
			}
		case *cli.Int64Flag:
			if f.Required {
				f.Required = false
				names = append(names, f.Name)
			}
		}
	}
	action := c.Action
	if len(names) == 0 || action == nil {
		return
	}
	c.Action = func(c *cli.Context) error {
		for _, name := range names {
			if !c.IsSet(name) {
				return Usagef("%s needs --%s; see '%s --help'", c.Command.HelpName, name, c.Command.HelpName)
			}
		}
		return action(c)
	}
}

// Group is the action of a command that only has subcommands.
func Group(c *cli.Context) error {
	if c.Args().Present() {
		return Usagef("unknown command %q; see '%s --help'", c.Args().First(), c.Command.HelpName)
	}
	return cli.ShowSubcommandHelp(c)
}

// JSONFlag is --json.
func JSONFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}
}

// VerboseFlag is --verbose.
func VerboseFlag() cli.Flag {
	return &cli.BoolFlag{Name: "verbose", Usage: "print verbose logs"}
}

// TimeoutFlag is --timeout.
func TimeoutFlag() cli.Flag {
	return &cli.IntFlag{Name: "timeout", Value: 30, Usage: "time to wait for the service, in seconds, 3 to 120"}
}

// Timeout returns the value of --timeout within its range.
func Timeout(c *cli.Context) (time.Duration, error) {
	n := c.Int("timeout")
	if n < 3 || n > 120 {
		return 0, Usagef("--timeout %d is outside 3 to 120 seconds", n)
	}
	return time.Duration(n) * time.Second, nil
}

// Logger returns the log of a command: errors, or everything with --verbose.
func (e *Env) Logger(c *cli.Context) *slog.Logger {
	level := slog.LevelError
	if c.Bool("verbose") {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(e.Stderr, &slog.HandlerOptions{Level: level}))
}

// NArgs returns the command's arguments if there are exactly as many as names.
func NArgs(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	if len(names) == 0 && len(args) > 0 {
		return nil, Usagef("%s takes no argument, and %q is one; see '%s --help'", c.Command.HelpName, args[0], c.Command.HelpName)
	}
	for _, a := range args {
		if strings.HasPrefix(a, "--") {
			return nil, Usagef("option %s must come before %s; see '%s --help'", a, strings.Join(names, " "), c.Command.HelpName)
		}
	}
	if len(args) != len(names) {
		return nil, Usagef("%s needs %s; see '%s --help'", c.Command.HelpName, strings.Join(names, " "), c.Command.HelpName)
	}
	return args, nil
}

// UUID reads an argument or option that is one.
func UUID(text string) (string, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return "", Usagef("%q is no UUID", text)
	}
	return id.String(), nil
}

// Failed puts what was attempted before an error; nil stays nil.
func Failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return errkind.Errorf(errkind.Of(err), "failed to %s: %w", what, err)
}

// Print writes v as JSON where --json is given, otherwise what human writes.
func (e *Env) Print(c *cli.Context, v any, human func(w io.Writer) error) error {
	if !c.Bool("json") {
		return human(e.Stdout)
	}
	enc := json.NewEncoder(e.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Fields writes one "NAME : value" line a pair, aligned.
func Fields(w io.Writer, pairs ...[2]string) {
	width := 0
	for _, p := range pairs {
		width = max(width, len(p[0]))
	}
	for _, p := range pairs {
		fmt.Fprintf(w, "%-*s : %s\n", width, p[0], p[1])
	}
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
