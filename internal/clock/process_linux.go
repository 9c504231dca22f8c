package clock

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// OfProcess is the processor time of a process and of the threads that it has had, by
// its own clock: /proc rounds it down to hundredths of a second, twice.
func OfProcess(pid int) (time.Duration, error) {
	const perProcess = 2 // in the lowest three bits of a clock's number; the others are the process, inverted
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|perProcess), &t); err != nil {
		return 0, fmt.Errorf("processor time of %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
