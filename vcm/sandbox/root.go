package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// points are folders one of which every host has; the new root is mounted on it
// inside the process's own mount namespace.
func points() []string { return []string{"/tmp", "/run", "/mnt", "/proc"} }

const inside = "data"

// changeRoot replaces the process's root by an empty read-only one that holds
// nothing but the data directory, and looks for the old one.
func (r *Report) changeRoot(cfg Config) {
	const wanted = "an empty, read-only root with the data directory only"
	defer openInPlace(int(cfg.DataDir.Fd()))
	if !slices.Contains(cfg.Isolation.Namespaces, "mnt") {
		r.add(controlRoot, wanted, Absent, notGiven, "open of /etc/passwd → "+outcome(tryOpen("/etc/passwd")))
		return
	}
	var bound error
	err := enforce(controlRoot, func() (err error) {
		bound, err = newRoot(int(cfg.DataDir.Fd()))
		return err
	})
	if err != nil {
		r.add(controlRoot, wanted, Absent, err.Error(), "open of /etc/passwd → "+outcome(tryOpen("/etc/passwd")))
		return
	}
	attempts := []struct {
		what string
		err  error
		want []error
	}{
		{"open of /etc/passwd", tryOpen("/etc/passwd"), []error{unix.ENOENT}},
		{"open of /proc/self/environ", tryOpen("/proc/self/environ"), []error{unix.ENOENT}},
		{"mkdir /probe", unix.Mkdir("/probe", 0o700), []error{unix.EROFS, unix.EACCES}},
		{"open of the root above data", climb(int(cfg.DataDir.Fd()), bound == nil), []error{unix.ENOENT, unix.EACCES}},
	}
	got, reason := Enforced, ""
	var proof []string
	for _, a := range attempts {
		proof = append(proof, a.what+" → "+outcome(a.err))
		if !slices.ContainsFunc(a.want, func(w error) bool { return errors.Is(a.err, w) }) {
			got, reason = Absent, a.what+" was not refused"
		}
	}
	if bound != nil && got == Enforced {
		// The directory is still in the host's mount, above which its owner's
		// permissions and Landlock are in the way, not the mount.
		got, reason = Partial, "the data directory is in the host's mount: "+bound.Error()
	}
	r.add(controlRoot, wanted, got, reason, strings.Join(proof, "; "))
}

func tryOpen(path string) error { return tryOpenAt(unix.AT_FDCWD, path) }

func tryOpenAt(dir int, path string) error {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// climb goes up from the data directory and looks for the host there.
func climb(dir int, bound bool) error {
	up := "../../../../../../../../../../../../../../../../etc/passwd"
	fd, err := unix.Openat(dir, up, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	} else if !bound && errors.Is(err, unix.ENOENT) {
		return unix.EACCES // nothing there either
	}
	return err
}

// newRoot mounts the root and goes there. bound is why the data directory could
// not be mounted into it, nil if it was.
func newRoot(dir int) (bound, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	tree, bound := cloneTree(dir)
	if bound == nil {
		defer unix.Close(tree)
	}
	var point string
	for _, p := range points() {
		err = unix.Mount("tmpfs", p, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=16k,nr_inodes=4,mode=0555")
		if err == nil {
			point = p
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("mount a root: %w", err)
	}
	if bound == nil {
		bound = attach(tree, point+"/"+inside)
	}
	if err := unix.Chdir(point); err != nil {
		return nil, fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return nil, fmt.Errorf("change the root: %w", err)
	}
	// The old root lies over the new one now; taking it off leaves nothing of it.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return nil, fmt.Errorf("take off the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return nil, fmt.Errorf("enter the root: %w", err)
	}
	if bound == nil {
		bound = reopen(dir)
	}
	err = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil {
		return nil, fmt.Errorf("make the root read-only: %w", err)
	}
	return bound, nil
}

// cloneTree takes a mount of the data directory. A privileged launcher hands one
// over. Otherwise it is found by its path, because the descriptor belongs to the
// launcher's mount namespace; that must be done before anything is mounted over
// the path.
func cloneTree(dir int) (tree int, err error) {
	if flags, err := unix.FcntlInt(uintptr(dir), unix.F_GETFL, 0); err == nil && flags&unix.O_PATH != 0 {
		return unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0) // a mount of its own already, from the launcher
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(dir))
	if err != nil {
		return -1, fmt.Errorf("path of the data directory: %w", err)
	}
	tree, err = unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("the data directory cannot be reached by its path: %w", err)
	}
	if !sameFile(tree, dir) {
		_ = unix.Close(tree)
		return -1, errors.New("the data directory's path leads elsewhere")
	}
	return tree, nil
}

func sameFile(a, b int) bool {
	var sa, sb unix.Stat_t
	return unix.Fstat(a, &sa) == nil && unix.Fstat(b, &sb) == nil && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

// attach mounts the tree at point, without devices, programs and set-uid files.
func attach(tree int, point string) error {
	if err := unix.Mkdir(point, 0o700); err != nil {
		return fmt.Errorf("place of the data directory: %w", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, point, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the data directory: %w", err)
	}
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(unix.AT_FDCWD, point, 0, attr); err != nil {
		return fmt.Errorf("restrict the data directory's mount: %w", err)
	}
	return nil
}

// openInPlace replaces a descriptor that only names the directory, as the
// launcher hands it over, by one that can be read and synced.
func openInPlace(dir int) {
	flags, err := unix.FcntlInt(uintptr(dir), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_PATH == 0 {
		return
	}
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // the store will say why
	}
	_ = unix.Dup3(fd, dir, unix.O_CLOEXEC)
	_ = unix.Close(fd)
}

// reopen makes the descriptor dir lead to the data directory inside the root.
func reopen(dir int) error {
	fd, err := unix.Open("/"+inside, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the data directory: %w", err)
	}
	defer unix.Close(fd)
	if !sameFile(fd, dir) {
		return errors.New("another directory was mounted")
	}
	return unix.Dup3(fd, dir, unix.O_CLOEXEC)
}
