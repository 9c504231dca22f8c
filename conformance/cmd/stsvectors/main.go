// Command stsvectors runs files of STS token vectors against hsm/sts: it builds
// every token, decodes it back and compares each intermediate value.
//
//	stsvectors [--sta-tables FILE] [--constant-time] [--both] FILE...
//
// Each failing vector is one line with the first value that differs; the last
// line is "N passed, N failed". The exit code is 0 if all passed, 1 if one
// failed and 2 if a file could not be read, of whose vectors none ran.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/vectors"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, console.System(), os.Args)
	stop()
	os.Exit(code)
}

// run is the whole command. A failing vector is a result, not an error of the
// command: its code is 1 without a message after the summary.
func run(ctx context.Context, env *console.Env, args []string) int {
	failed := 0
	if code := env.Run(ctx, App(env, &failed), args); code != 0 {
		return code
	}
	return min(failed, 1)
}

// App is the command line of stsvectors; failed gets the number of failing vectors.
func App(env *console.Env, failed *int) *cli.App {
	return &cli.App{
		Name:      "stsvectors",
		Usage:     "run STS token vectors in both directions",
		ArgsUsage: "FILE...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "sta-tables", Usage: "JSON `FILE` with STA tables, for vectors that are not for " + vectors.Sample},
			&cli.BoolFlag{Name: "constant-time", Usage: "use the cipher variant without secret-dependent memory access"},
			&cli.BoolFlag{Name: "both", Usage: "run every vector with both cipher variants"},
		},
		Action: func(c *cli.Context) error { return runFiles(env, c, failed) },
	}
}

func runFiles(env *console.Env, c *cli.Context, failed *int) error {
	if !c.Args().Present() {
		return console.Usagef("no vector file given; see 'stsvectors --help'")
	}
	if c.Bool("both") && c.Bool("constant-time") {
		return console.Usagef("--both includes --constant-time; give one of them")
	}
	tables, err := readTables(c.String("sta-tables"))
	if err != nil {
		return err
	}
	runners := []vectors.Runner{{Tables: tables, Variant: sts.TableDriven}, {Tables: tables, Variant: sts.ConstantTime}}
	switch {
	case c.Bool("constant-time"):
		runners = runners[1:]
	case !c.Bool("both"):
		runners = runners[:1]
	}
	files := make([]vectors.File, c.NArg())
	for i, path := range c.Args().Slice() {
		if files[i], err = readVectors(path); err != nil {
			return err
		}
	}
	passed := 0
	for i, f := range files {
		for _, v := range f.Vectors {
			if err := runCase(c.Context, runners, v); err != nil {
				*failed++
				fmt.Fprintf(env.Stdout, "FAIL %s %s: %s\n", c.Args().Get(i), v.ID, err)
				continue
			}
			passed++
		}
	}
	if _, err := fmt.Fprintf(env.Stdout, "%d passed, %d failed\n", passed, *failed); err != nil {
		return err
	}
	return c.Context.Err()
}

// runCase runs one vector with every runner; with two, the failing variant is named.
func runCase(ctx context.Context, runners []vectors.Runner, v vectors.Case) error {
	for _, r := range runners {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := r.Run(v)
		if err != nil && len(runners) > 1 {
			return fmt.Errorf("(%s) %w", r.Variant, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readVectors(path string) (vectors.File, error) {
	p, err := atomicfile.Read(path, vectors.MaxFile)
	if err != nil {
		return vectors.File{}, errkind.Errorf(errkind.Invalid, "read vectors: %w", err)
	}
	f, err := vectors.Parse(p)
	if err != nil {
		return vectors.File{}, errkind.Errorf(errkind.Invalid, "vector file %s: %w", path, err)
	}
	return f, nil
}

// maxTables bounds the file of STA tables.
const maxTables = 64 << 10

func readTables(path string) (*sts.Tables, error) {
	if path == "" {
		return nil, nil
	}
	p, err := atomicfile.Read(path, maxTables)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "read STA tables: %w", err)
	}
	tables, err := sts.ParseTables(path, p)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "--sta-tables: %w", err)
	}
	return tables, nil
}
