// Command demo is the main job of Tesserae from nothing: it starts the daemons
// in a fresh folder on loopback addresses, and then runs the real command-line
// tools as the maker, the provider, the tenant, a key management centre, a
// vending system and a customer at the meter would, down to 20 digits that the
// meter accepts.
//
// It fails at the first step that does not do what it should, and leaves no
// process behind unless -keep is given.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

func main() {
	bin := flag.String("bin", "bin", "folder with the binaries")
	dir := flag.String("dir", "", "state folder; default: a fresh temporary folder, removed at the end")
	keep := flag.Bool("keep", false, "leave the daemons running and print how to use and stop them")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	start := time.Now()
	err := run(ctx, *bin, *dir, *keep)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: FAILED after %.1f s: %v\n", time.Since(start).Seconds(), err)
		os.Exit(1)
	}
	fmt.Printf("\ndemo: ok in %.1f s\n", time.Since(start).Seconds())
}

func run(ctx context.Context, bin, dir string, keep bool) (err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	fresh := dir == ""
	if fresh {
		dir, err = os.MkdirTemp("", "tesserae-demo-")
	} else {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return err
	}
	r := rig.New(bin, dir, os.Stdout)
	if err := play(ctx, r); err != nil {
		err = errors.Join(err, r.Stop())
		return fmt.Errorf("%w\nthe state and the logs stay in %s", err, dir)
	}
	if keep {
		fmt.Printf("\n%s", r.HowToStop())
		return nil
	}
	if err := r.Stop(); err != nil || !fresh {
		return err
	}
	return os.RemoveAll(dir)
}
