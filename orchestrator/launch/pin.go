package launch

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pin gives the binary a descriptor far from all others. Before a child's exec
// the runtime moves descriptors to the numbers just above the highest one that
// the child gets, whatever is open there.
func pin(f *os.File) (fd int, err error) {
	// More than a thousand VCMs take, and a table that is still quickly copied.
	const far, room = 1 << 15, 64
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	least := max(int(min(limit.Cur, far))-room, room)
	if fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, least); err != nil {
		return 0, fmt.Errorf("no descriptor from %d to %d: %w", least, limit.Cur, err)
	}
	return fd, nil
}
