package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// usage is what this process uses.
func usage() (memory int64, cpuSeconds float64) {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru) // cannot fail with these arguments
	seconds := func(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return residentMemory(), seconds(ru.Utime) + seconds(ru.Stime)
}

func residentMemory() int64 {
	p, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(p), &size, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}
