package store

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// A store has two files, for as long as it exists. One holds the state; into the
// other, which is empty, the next compaction writes it, and empties the first.
// Where a crash comes in between, both hold whole logs, or the second does not
// even hold its first commit. Of whole ones that with the newest commit is the
// store. So no file is made, renamed or removed after Open: a sandbox may take
// these rights away.
const (
	fileName  = "store.log" // the first one; who has it locked has the store
	otherName = "store.new"
	// lockWait is how long a process waits for the one before it to end.
	lockWait = time.Second
)

// pair are the two files, open and locked.
type pair struct {
	first, second *os.File
	made          bool // the second one was, just now
}

func (p pair) close() error { return errors.Join(p.first.Close(), p.second.Close()) }

// openPair opens both files, making the second one. The error is fs.ErrNotExist
// if there is no store.
func openPair(dir *os.File) (p pair, err error) {
	if p.first, err = openLocked(dir); err != nil {
		return pair{}, err
	}
	if p.second, p.made, err = openOther(dir); err != nil {
		return pair{}, errors.Join(err, p.first.Close())
	}
	return p, nil
}

// at opens name in the directory, and nothing else.
func at(dir *os.File, name string, flag int) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|flag, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openLocked opens the first file for this process alone.
func openLocked(dir *os.File) (*os.File, error) {
	f, err := at(dir, fileName, 0)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			err = errkind.Errorf(errkind.Internal, "lock the store: %w", err)
		case time.Now().Before(deadline):
			continue
		default:
			err = errkind.Errorf(errkind.Unavailable, "another process has the store open")
		}
		return nil, errors.Join(err, f.Close())
	}
}

// openOther opens the second file. Who has the first one, or makes it, is the
// only one to use it.
func openOther(dir *os.File) (f *os.File, made bool, err error) {
	f, err = at(dir, otherName, 0)
	if made = errors.Is(err, fs.ErrNotExist); made {
		f, err = at(dir, otherName, unix.O_CREAT)
	}
	if err != nil {
		return nil, false, errkind.Errorf(errkind.Internal, "open the store's other file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, false, errors.Join(errkind.Errorf(errkind.Unavailable, "another process is making the store: %w", err), f.Close())
	}
	return f, made, nil
}

// install makes the second file the first one of a new store. Its name lasts once
// the directory is synced, which openLog does when there is another second file.
func install(dir *os.File) error {
	if err := unix.Renameat(int(dir.Fd()), otherName, int(dir.Fd()), fileName); err != nil {
		return errkind.Errorf(errkind.Internal, "put the new store in place: %w", err)
	}
	return nil
}

// choose returns the file that holds the state, and the other one. It changes
// neither. A log whose first commit is whole, but not what follows, was damaged:
// that is refused, whatever the other one holds.
func (p pair) choose(key *sealed.Key) (l *logFile, other *os.File, err error) {
	for _, f := range []struct{ one, other *os.File }{{p.second, p.first}, {p.first, p.second}} {
		st, err := f.one.Stat()
		if err != nil {
			return nil, nil, errkind.Errorf(errkind.Internal, "look at the store: %w", err)
		}
		if st.Size() == 0 { // as a rule one is
			l, err = readHead(f.other, key)
			return l, f.one, err
		}
	}
	inFirst, whole, err := newest(p.first, key)
	if err != nil {
		return nil, nil, err
	}
	inSecond, alsoWhole, err := newest(p.second, key)
	if err != nil {
		return nil, nil, err
	}
	state, other := p.first, p.second
	if alsoWhole && (!whole || inSecond > inFirst) {
		state, other = p.second, p.first
	}
	l, err = readHead(state, key)
	return l, other, err
}

// newest is the last commit of a file; whole is false if it has not even the
// first one. The error is that of a damaged log.
func newest(f *os.File, key *sealed.Key) (seq uint64, whole bool, err error) {
	l, err := readHead(f, key)
	if err != nil {
		return 0, false, nil
	}
	begin := l.end
	seq, err = l.replay(key, func(int64, []byte) error { return nil })
	if err != nil && l.end == begin {
		return 0, false, nil
	}
	return seq, err == nil, err
}
