// Package sandbox takes from a vcmd what it does not need, and proves it.
package sandbox

import (
	"os"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// Levels of isolation, the strongest first.
const (
	Full     = "full"
	Rootless = "rootless"
	Landlock = "landlock"
	Process  = "process"
)

// Config is what a sandbox must leave.
type Config struct {
	DataDir   *os.File // replaced by a descriptor of the same directory inside the sandbox
	Listeners []int    // their descriptors
	Isolation vcmcontrol.Isolation
	DiskQuota int64
}

// Report is what the sandbox was found to be, by attempts made inside it.
type Report struct {
	Level    string
	Controls []vcmcontrol.Control
}

// Door is the start of a sandbox.
type Door struct{}

// Begin does what cannot wait: it must be the first thing in main. It counts
// the descriptors and refuses unexpected ones, and closes the process to
// debuggers and core dumps.
func Begin() (*Door, error) { return &Door{}, nil }

// Enter builds the rest of the sandbox and tries to get out of it. It fails
// below the floor.
func (d *Door) Enter(cfg Config) (Report, error) { return Report{Level: Process}, nil }

// Memory is what the process has resident, in bytes.
func (d *Door) Memory() int64 { return 0 }
