package launch_test

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
)

// TestBinarySurvivesBusyDescriptors starts children whose highest descriptor
// grows past every number at which the binary once was, and any power of two
// near it: above each the runtime puts descriptors of its own before exec.
func TestBinarySurvivesBusyDescriptors(t *testing.T) {
	l := launcher(t, launch.Config{})
	for _, number := range []int{63, 255, 509, 510, 511, 512, 1023, 4095} {
		s := spec(t, "ready")
		fd, err := unix.FcntlInt(s.Sockets[0].File.Fd(), unix.F_DUPFD_CLOEXEC, number)
		if err != nil {
			t.Fatal(err)
		}
		s.Sockets[0].File = os.NewFile(uintptr(fd), fmt.Sprint(number))
		p, err := l.Launch(t.Context(), s)
		if err != nil {
			t.Errorf("listener at %d: %v", fd, err)
		} else if _, err := p.Ready(t.Context()); err != nil {
			t.Errorf("listener at %d: %v", fd, err)
		} else if err := p.Stop(t.Context(), vcmcontrol.Stop{Force: true, Drain: 1000}); err != nil {
			t.Errorf("listener at %d: %v", fd, err)
		}
		s.Sockets[0].File.Close()
	}
}
