//go:build hostile

package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// storeFile opens a file of the store. done gives it the size that it had.
func storeFile(name string) (fd int, size int64, done func(), err error) {
	fd, err = unix.Openat(vcmcontrol.DataDirFD, name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return 0, 0, nil, err
	}
	return fd, st.Size, func() {
		_ = unix.Ftruncate(fd, st.Size)
		_ = unix.Close(fd)
	}, nil
}

// bigFile makes the store's own file larger than any store.
func bigFile(map[string]string) (string, error) {
	fd, _, done, err := storeFile("store.log")
	if err != nil {
		return "", err
	}
	defer done()
	return "", unix.Ftruncate(fd, 512<<20) // sparse: nothing is written
}

// fillStore writes as much as it can into both files of the store, and then cuts
// them to the size that they had.
func fillStore(map[string]string) (string, error) {
	const piece, want = 1 << 20, 64 << 20
	var written int64
	var last error
	for _, name := range []string{"store.log", "store.new"} {
		fd, at, done, err := storeFile(name)
		if err != nil {
			return "", err
		}
		defer done()
		for last = nil; last == nil && at < want; {
			var n int
			if n, last = unix.Pwrite(fd, make([]byte, piece), at); last == nil {
				at += int64(n)
			}
		}
		written += at
	}
	return fmt.Sprintf("%d MiB in both files", written>>20), last
}

// manyFiles fills the disk with files of a size that is allowed.
func manyFiles(map[string]string) (string, error) {
	const want = 64
	for i := range want {
		name := fmt.Sprintf("fill-%d", i)
		fd, err := unix.Openat(vcmcontrol.DataDirFD, name, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Sprintf("%d files", i), err
		}
		defer unix.Unlinkat(vcmcontrol.DataDirFD, name, 0)
		if err := closed(fd, unix.Ftruncate(fd, 16<<20)); err != nil {
			return fmt.Sprintf("%d files", i), err
		}
	}
	return fmt.Sprintf("%d files", want), nil
}

// takeMemory uses twice the memory that a VCM may.
func takeMemory(map[string]string) (string, error) {
	const piece = 16 << 20
	var all [][]byte
	for range 512 << 20 / piece {
		m, err := unix.Mmap(-1, 0, piece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return "", err
		}
		for i := 0; i < piece; i += 4096 {
			m[i] = 1
		}
		all = append(all, m)
	}
	for _, m := range all {
		_ = unix.Munmap(m)
	}
	return "512 MiB", nil
}

// forkBomb makes more processes than a VCM may. They end by themselves: threads
// of one process may be strangers to each other's children.
func forkBomb(map[string]string) (string, error) {
	var pids []int
	var last error
	for range 400 {
		pid, e := rawForkPause(&unix.Timespec{Sec: 2})
		if e != 0 {
			last = e
			break
		}
		pids = append(pids, pid)
	}
	for _, p := range pids {
		_ = exitStatus(p)
	}
	return fmt.Sprintf("%d processes", len(pids)), last
}

//go:norace
//go:noinline
func rawForkPause(pause *unix.Timespec) (int, syscall.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e == 0 && pid == 0 {
		for {
			_, _, _ = syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(pause)), 0, 0)
			_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return int(pid), e
}

// threads takes more threads than a VCM may; the Go runtime ends the process
// when it is refused one.
func threads(map[string]string) (string, error) {
	const want = 600
	stop, begun := make(chan struct{}), make(chan struct{}, want)
	defer close(stop)
	for range want {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			begun <- struct{}{}
			<-stop
		}()
	}
	for i := range want {
		select {
		case <-begun:
		case <-time.After(10 * time.Second):
			return fmt.Sprintf("%d threads", i), errors.New("no more threads")
		}
	}
	return fmt.Sprintf("%d threads", want), nil
}

// burn keeps as many processors busy as it can get, with as many threads as it is
// told to, and returns when the time is over.
func burn(a map[string]string) (string, error) {
	n, end := number(a["threads"]), time.Now().Add(time.Duration(number(a["ms"]))*time.Millisecond)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n + 1))
	var spinning sync.WaitGroup
	for range n {
		spinning.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for time.Now().Before(end) {
			}
		})
	}
	spinning.Wait()
	return fmt.Sprintf("%d threads", n), nil
}
