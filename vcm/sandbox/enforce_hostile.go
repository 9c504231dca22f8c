//go:build hostile

package sandbox

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// withheldFile in the data directory names the layers that a hostile build
// leaves out, one a line, or all.
const withheldFile = ".without"

func enforce(layer string, apply func() error) error {
	if w := withheld(); slices.Contains(w, layer) || slices.Contains(w, "all") {
		return nil
	}
	return apply()
}

func withheld() []string {
	fd, err := unix.Openat(vcmcontrol.DataDirFD, withheldFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var buf [4096]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return nil
	}
	return strings.Fields(string(buf[:n]))
}
