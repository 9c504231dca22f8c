package store

import (
	"errors"
	"io/fs"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	fileName = "store.db"
	// newName is a file that is being made; it becomes fileName when it is whole.
	newName = "store.new"
	// growStep is how much the file grows at a time.
	growStep = 256 << 10
)

// at opens name in the directory, and nothing else.
func at(dir *os.File, name string, flag int, mode os.FileMode) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, uint32(mode.Perm()))
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openFile opens the store's file, making it if the device's counter says that
// there never was one.
func openFile(cfg Config, s seals, counter uint64) (*bolt.DB, error) {
	if err := unix.Unlinkat(int(cfg.Dir.Fd()), newName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, errkind.Errorf(errkind.Internal, "remove an unfinished store: %w", err)
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(cfg.Dir.Fd()), fileName, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT) && counter > 0:
		return nil, errkind.Errorf(errkind.Integrity,
			"the store is missing, but the module has seen its commit %d; restore the newest copy of the VCM's data", counter)
	case errors.Is(err, unix.ENOENT):
		if err := create(cfg, s); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, errkind.Errorf(errkind.Internal, "look for the store: %w", err)
	}
	db, err := bolted(cfg, fileName)
	if err != nil {
		return nil, err
	}
	if !sparse(db) {
		return db, nil
	}
	return compacted(cfg, db)
}

// bolted opens one file with bbolt, whose panics on a damaged file become errors.
func bolted(cfg Config, name string) (db *bolt.DB, err error) {
	defer func() {
		if v := recover(); v != nil {
			db, err = nil, errkind.Errorf(errkind.Integrity, "the store is damaged: %v", v)
		}
	}()
	db, err = bolt.Open(name, 0o600, &bolt.Options{
		Timeout:         time.Second,
		FreelistType:    bolt.FreelistMapType,
		NoFreelistSync:  true, // the freelist is found again when the file is verified
		InitialMmapSize: int(2 * cfg.Quota),
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			return at(cfg.Dir, name, flag, mode)
		},
	})
	if err != nil {
		kind := errkind.Integrity
		if errors.Is(err, berrors.ErrTimeout) {
			kind = errkind.Unavailable
		}
		return nil, errkind.Errorf(kind, "open the store: %w", err)
	}
	db.AllocSize = growStep
	return db, nil
}

// create makes an empty store: whole under its name, or not there.
func create(cfg Config, s seals) error {
	db, err := bolted(cfg, newName)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error { return s.write(tx, header{}) })
	if err = errors.Join(err, db.Close()); err != nil {
		return errkind.Errorf(errkind.Internal, "make the store: %w", err)
	}
	return install(cfg.Dir)
}

// install puts the finished new file in the store's place.
func install(dir *os.File) error {
	if err := unix.Renameat(int(dir.Fd()), newName, int(dir.Fd()), fileName); err != nil {
		return errkind.Errorf(errkind.Internal, "put the new store in place: %w", err)
	}
	if err := dir.Sync(); err != nil {
		return errkind.Errorf(errkind.Internal, "sync the data directory: %w", err)
	}
	return nil
}

// sparse reports whether most of a file of some size is free pages.
func sparse(db *bolt.DB) bool {
	tx, err := db.Begin(false)
	if err != nil {
		return false
	}
	defer func() { _ = tx.Rollback() }()
	st := db.Stats()
	free := int64(st.FreePageN+st.PendingPageN) * int64(db.Info().PageSize)
	return tx.Size() > 1<<20 && free > tx.Size()/2
}

// compacted rewrites db without its free pages. The sealed values are copied as
// they are.
func compacted(cfg Config, db *bolt.DB) (*bolt.DB, error) {
	to, err := bolted(cfg, newName)
	if err == nil {
		err = errors.Join(bolt.Compact(to, db, growStep), to.Close())
	}
	err = errors.Join(err, db.Close())
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "compact the store: %w", err)
	}
	if err := install(cfg.Dir); err != nil {
		return nil, err
	}
	return bolted(cfg, fileName)
}
