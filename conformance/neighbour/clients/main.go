// Command clients is a till, or holds connections: what the tests of the
// neighbour run beside themselves, without the race detector.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/tesserae-hsm/tesserae/conformance/neighbour"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return neighbour.ServeTill(context.Background(), os.Stdin, os.Stdout)
	}
	var n int
	if len(args) != 2 {
		return fmt.Errorf("clients [ADDRESS CONNECTIONS]")
	}
	if _, err := fmt.Sscan(args[1], &n); err != nil {
		return err
	}
	return neighbour.Hold(args[0], n, os.Stdin, os.Stdout)
}
