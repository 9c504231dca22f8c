package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// lock makes this process the only one that changes the meter at path, so that
// two entries of one token cannot both find it unused. The lock file stays: to
// remove it would let two processes hold two locks.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "lock the meter: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the meter: %w", err)
	}
	return func() { _ = f.Close() }, nil
}
