package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// App is the command line of bench.
func App(env *console.Env) *cli.App {
	return &cli.App{
		Name:      "bench",
		Usage:     "run the benchmarks and print each with its ratio to a reference",
		ArgsUsage: "[FOLDER...]",
		Description: "FOLDER is a package's folder below the module's root; without one, every\n" +
			"package with a benchmark runs.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "count", Value: 7, Usage: "rounds whose median is printed"},
			&cli.DurationFlag{Name: "time", Value: 100 * time.Millisecond, Usage: "time of a benchmark in each round"},
			&cli.StringFlag{Name: "run", Value: ".", Usage: "only benchmarks that match `PATTERN`; references are needed for ratios"},
		},
		Action: func(c *cli.Context) error { return run(env, c) },
	}
}

func run(env *console.Env, c *cli.Context) error {
	if c.Int("count") < 1 || c.Duration("time") <= 0 {
		return console.Usagef("--count and --time must be positive")
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	folders := c.Args().Slice()
	if len(folders) == 0 {
		if folders, err = packagesWithBenchmarks(os.DirFS(root)); err != nil {
			return err
		}
	}
	scratch, err := os.MkdirTemp("", "bench")
	if err != nil {
		return errkind.Errorf(errkind.Unavailable, "make a folder for the test binaries: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()

	results := newResults()
	progress := env.NewProgress(len(folders)*(c.Int("count")+1), "benchmarks")
	defer progress.End()
	for _, folder := range folders {
		if err := measure(c, filepath.Join(root, folder), filepath.ToSlash(folder), scratch, results, func() { progress.Add(1) }); err != nil {
			return err
		}
	}
	return results.print(env.Stdout)
}

// measure builds the test binary of one package and runs it count times.
func measure(c *cli.Context, dir, folder, scratch string, results *results, step func()) error {
	binary := filepath.Join(scratch, strings.ReplaceAll(folder, "/", "-")+".test")
	build := exec.CommandContext(c.Context, "go", "test", "-c", "-o", binary, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return errkind.Errorf(errkind.Invalid, "build the benchmarks of %s: %w\n%s", folder, err, out)
	}
	step()
	for range c.Int("count") {
		out, err := runOnce(c.Context, dir, binary, c.String("run"), c.Duration("time"))
		if err != nil {
			return errkind.Errorf(errkind.Internal, "benchmarks of %s: %w\n%s", folder, err, out)
		}
		if err := results.add(folder, out); err != nil {
			return err
		}
		step()
	}
	return nil
}

func runOnce(ctx context.Context, dir, binary, pattern string, perBenchmark time.Duration) ([]byte, error) {
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^$", "-test.bench", pattern, "-test.benchmem", "-test.benchtime", perBenchmark.String())
	cmd.Dir = dir
	return cmd.CombinedOutput()
}

// moduleRoot is the nearest folder above the working directory with a go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", errkind.Errorf(errkind.Unavailable, "find the working directory: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errkind.Errorf(errkind.Invalid, "no go.mod here or above; run bench inside the module")
		}
		dir = parent
	}
}

// packagesWithBenchmarks returns the folders whose test files declare a
// benchmark, in lexical order.
func packagesWithBenchmarks(tree fs.FS) ([]string, error) {
	var folders []string
	err := fs.WalkDir(tree, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		folder := filepath.ToSlash(filepath.Dir(path))
		if !strings.HasSuffix(name, "_test.go") || len(folders) > 0 && folders[len(folders)-1] == folder {
			return nil
		}
		source, err := fs.ReadFile(tree, path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed while we walked
		}
		if err != nil {
			return err
		}
		if strings.Contains(string(source), "\nfunc Benchmark") {
			folders = append(folders, folder)
		}
		return nil
	})
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "look for benchmarks: %w", err)
	}
	return folders, nil
}
