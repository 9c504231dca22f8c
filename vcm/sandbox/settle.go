package sandbox

import (
	"fmt"
	"os"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// directoryRights are those to make and remove files.
const directoryRights = ll.AccessFSMakeReg | ll.AccessFSRemoveFile

// Settle takes away the right to make and remove files, once the store's are
// open: with the limit on a file's size, what a VCM that was taken over can write
// is bounded, also where the host has no disk quotas. It completes the report
// and, as Enter, fails below the floor.
func (d *Door) Settle(data *os.File) (Report, error) {
	const wanted = "no file but the store's"
	r := &d.report
	if err := enforce(controlFiles, keepFiles); err != nil {
		r.add(controlFiles, wanted, Absent, err.Error(), "")
	} else {
		made := tryFile(int(data.Fd()))
		r.prove(controlFiles, wanted, made == unix.EACCES, "a file could be made", "make a file in data → "+outcome(made))
	}
	r.Level = r.level()
	if err := r.admit(d.floor); err != nil {
		return Report{}, err
	}
	return *r, nil
}

func keepFiles() error {
	rules, err := ll.LandlockCreateRuleset(&ll.RulesetAttr{HandledAccessFS: directoryRights}, 0)
	if err != nil {
		return fmt.Errorf("make Landlock rules: %w", err)
	}
	defer unix.Close(rules)
	return enforceRules(rules)
}

// tryFile makes a file in the data directory. What the store needs there is not
// tried: a VCM that has come so far did it.
func tryFile(dir int) error {
	fd, err := unix.Openat(dir, probeName, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		_ = unix.Close(fd)
		_ = unix.Unlinkat(dir, probeName, 0)
	}
	return err
}
