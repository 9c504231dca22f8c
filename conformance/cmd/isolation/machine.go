package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/tesserae-hsm/tesserae/conformance/isolation/vm"
)

// inMachine runs the suite in a virtual machine.
func inMachine(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "tiso-vm-")
	if err != nil {
		return err
	}
	if !o.keep {
		defer os.RemoveAll(dir)
	}
	// Words for the kernel's command line, which knows no quotes here.
	arguments := []string{"guest", "-parts=" + o.parts, "-rows=" + strings.ReplaceAll(o.rows, " ", "_"), fmt.Sprintf("-short=%t", o.short)}
	return vm.Machine{
		Kernel: o.kernel, Programs: o.bin, Init: "isolation", Arguments: arguments, Dir: dir, Limit: o.limit, Out: os.Stdout,
	}.Run(ctx)
}

// guest runs the suite as the machine's first process.
func guest(arguments []string) {
	vm.Guest(func() error {
		var o options
		flags := o.flags()
		if err := flags.Parse(arguments); err != nil {
			return err
		}
		o.bin, o.rows, o.ownGroup = "/bin", strings.ReplaceAll(o.rows, "_", " "), true
		if err := os.Setenv("PATH", "/bin"); err != nil {
			return err
		}
		return suite(context.Background(), o)
	})
}
