//go:build hostile

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

func bindTCP(a map[string]string) (string, error) {
	ap, err := netip.ParseAddrPort(a["address"])
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	// It listens for a moment longer than the answer takes to arrive.
	defer time.AfterFunc(time.Second, func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: ap.Addr().As4()}); err != nil {
		return "", err
	}
	if err := unix.Listen(fd, 1); err != nil {
		return "", err
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s:%d", ap.Addr(), at.(*unix.SockaddrInet4).Port), nil
}

func climb(map[string]string) (string, error) {
	fd, err := unix.Openat(vcmcontrol.DataDirFD, strings.Repeat("../", 20)+"etc/passwd", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return "", closed(fd, err)
}

func writeOutside(map[string]string) (string, error) {
	var last error
	for _, dir := range []string{"/tmp", "/dev/shm", "/var/tmp", "/"} {
		name := filepath.Join(dir, fmt.Sprintf("taken-over-%x", rand.Uint64()))
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err == nil {
			_ = unix.Close(fd)
			return name, unix.Unlink(name)
		}
		last = err
	}
	return "", last
}

func makeFile(map[string]string) (string, error) {
	name := fmt.Sprintf("more-%x", rand.Uint64())
	fd, err := unix.Openat(vcmcontrol.DataDirFD, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err == nil {
		_ = unix.Unlinkat(vcmcontrol.DataDirFD, name, 0)
	}
	return "", closed(fd, err)
}

// openByHandle asks the file system of the data directory for its root by number.
func openByHandle(map[string]string) (string, error) {
	h, _, err := unix.NameToHandleAt(vcmcontrol.DataDirFD, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return "", err
	}
	own := h.Bytes()
	for inode := uint64(2); inode <= 128; inode += 126 { // of ext4, of xfs
		b := make([]byte, len(own))
		binary.NativeEndian.PutUint32(b, uint32(inode))
		fd, err := unix.OpenByHandleAt(vcmcontrol.DataDirFD, unix.NewFileHandle(h.Type(), b), unix.O_RDONLY|unix.O_CLOEXEC)
		if err == nil {
			return "", closed(fd, nil)
		}
		if err != unix.ESTALE {
			return "", err
		}
	}
	// Its own handle at least: the right to use one is what matters.
	fd, err := unix.OpenByHandleAt(vcmcontrol.DataDirFD, h, unix.O_RDONLY|unix.O_CLOEXEC)
	return "", closed(fd, err)
}

// deviceNode makes a node for the memory device and opens it.
func deviceNode(map[string]string) (string, error) {
	const name = ".device"
	if err := unix.Mknodat(vcmcontrol.DataDirFD, name, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))); err != nil { // as /dev/zero
		return "", err
	}
	defer unix.Unlinkat(vcmcontrol.DataDirFD, name, 0)
	fd, err := unix.Openat(vcmcontrol.DataDirFD, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return "", closed(fd, err)
}

// mountData mounts something on a folder of its own.
func mountData(a map[string]string) (string, error) {
	last := error(unix.ENOENT)
	for _, dir := range []string{"/data", a["own"]} {
		point := filepath.Join(dir, "m")
		if err := unix.Mkdir(point, 0o700); err != nil && err != unix.EEXIST {
			if last == unix.ENOENT {
				last = err
			}
			continue
		}
		err := unix.Mount("tmpfs", point, "tmpfs", 0, "size=4k")
		if err == nil {
			_ = unix.Unmount(point, unix.MNT_DETACH)
		}
		_ = unix.Rmdir(point)
		return "", err
	}
	return "", last
}

func becomeOther(map[string]string) (string, error) {
	return "", onThread(func() error {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65533, 65533, ^uintptr(0)); e != 0 {
			return e
		}
		return nil
	})
}

// setUID runs a program that belongs to root and has the right to be it.
func setUID(a map[string]string) (string, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer r.Close()
	pid, err := syscall.ForkExec(a["setuid"], []string{"cat", a["secret"]}, &syscall.ProcAttr{Files: []uintptr{2, w.Fd(), 2}})
	_ = w.Close()
	if err != nil {
		return "", err
	}
	var buf [16]byte
	n, _ := r.Read(buf[:])
	if err := exitStatus(pid); err != nil || n == 0 {
		return "", errors.Join(err, unix.EACCES)
	}
	return string(buf[:n]), nil
}
