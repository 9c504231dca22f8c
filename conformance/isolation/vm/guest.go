package vm

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Guest is the life of the machine's first process: it prepares what a host has
// before any service starts, runs the suite and turns the machine off.
func Guest(run func() error) {
	verdict := "0"
	err := prepare()
	if err == nil {
		err = run()
	}
	if err != nil {
		fmt.Printf("guest: %v\n", err)
		verdict = "an error"
	}
	fmt.Printf("\n%s%s\n", verdictPrefix, verdict)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // QEMU ends of it, too
}

// Groups is where the machine's control groups are mounted.
const Groups = "/sys/fs/cgroup"

func prepare() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("a guest is the first process of a machine, not process %d", os.Getpid())
	}
	if err := leaveInitialRoot(); err != nil {
		return err
	}
	for _, m := range []struct{ kind, point, options string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""}, {"tmpfs", "/tmp", "mode=1777,size=1g"}, {"cgroup2", Groups, ""},
	} {
		if err := unix.Mount(m.kind, m.point, m.kind, unix.MS_NOSUID, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.point, err)
		}
	}
	// The suite's words go where the kernel's do not.
	out, err := os.OpenFile("/dev/ttyS1", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup3(int(out.Fd()), fd, 0); err != nil {
			return err
		}
	}
	if err := loopback(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	// As systemd does: controllers for every service, and nobody in the root.
	if err := os.WriteFile(filepath.Join(Groups, "cgroup.subtree_control"), []byte("+memory +pids +cpu"), 0); err != nil {
		return err
	}
	own := filepath.Join(Groups, "init.scope")
	if err := os.Mkdir(own, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(own, "cgroup.procs"), []byte("1"), 0)
}

// leaveInitialRoot makes the root a mount like any other: in the kernel's initial
// one pivot_root is not to be had.
func leaveInitialRoot() error {
	const point = "/run"
	if err := unix.Mount("/", point, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	if err := os.Chdir(point); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// loopback turns the machine's only network on.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
