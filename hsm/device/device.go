// Package device is the physical unit: identity, root key, clock, partitions
// and monotonic counters, behind the methods of hsm/hsmapi.
//
// # What is kept where
//
// In the state folder:
//
//	identity.json     who the unit is; public. Written last: without it there is no unit
//	guard             the secret that stands for battery-backed tamper memory
//	root              the root key, sealed by the guard
//	keys              unit key and encryption key, sealed by the root
//	maker-root        the maker's key of the first warrant, sealed by the root
//	warrant           the maker's statement
//	clock.json        correction of the clock, and the latest time it showed
//	serial.json       the next module id
//	partitions/UUID   one partition each: its key, sealed by the root and, with
//	                  restrict-startup, by the tenant's share
//	counters          journal of the partitions' monotonic counters
//	tampered          the unit saw a tamper event; nothing opens any more
//	factory-pending   the return to factory state is not finished
//	lock              held by the process that uses the folder
//
// # Crashes
//
// Every change is one atomic file replacement, one journal batch with fsync, or
// a marker followed by steps that the next start repeats. What was answered is
// durable; what was not may or may not have happened, never half.
//
// # What software cannot promise
//
// Who can read the guard file and the rest of the folder can do what the unit
// can, except open partitions under a tenant's share. A copy of the whole folder
// put back later is not detected: the counters go back with it.
package device

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/keyfd"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// Config is what a unit needs.
type Config struct {
	Dir string
	// Guard protects the root key; nil is the file guard in Dir.
	Guard Guard
	// Clock is the host's.
	Clock clock.Clock
	Log   *slog.Logger
	// TestMode is CTS mode: VCMs fix their random numbers and ignore dates.
	TestMode bool
	// HardwareID is what Initialise makes; default HardwareID.
	HardwareID string
}

// Unit is an open unit. Close releases it.
type Unit struct {
	cfg  Config
	lock *os.File
	id   identity
	rtc  *rtc

	// mu guards everything below. Slow work (fsync) happens under it: partitions
	// are few and change rarely; counters have a lock of their own.
	mu         sync.Mutex
	tampered   error // why nothing works; nil on a sound unit
	root       *keyfd.Key
	boxes      *sealed.Key
	signer     ssh.Signer
	decrypt    *ecdh.PrivateKey
	makerRoot  string
	partitions map[string]*partition
	serials    *serials
	counters   *counters
	capacity   *capacity
	channels   map[*channel]struct{}
}

// Open opens the unit in cfg.Dir, finishes what a crash interrupted and locks
// the folder. A tampered unit opens too: it still says who it is.
func Open(ctx context.Context, cfg Config) (_ *Unit, err error) {
	cfg = cfg.withDefaults()
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	u := &Unit{cfg: cfg, lock: lock, channels: map[*channel]struct{}{}, capacity: newCapacity()}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.Close())
		}
	}()
	if u.id, err = readIdentity(cfg.Dir); err != nil {
		return nil, err
	}
	if u.rtc, err = openClock(cfg.Dir, cfg.Clock, cfg.Log); err != nil {
		return nil, err
	}
	if u.tampered = u.unlock(); u.tampered != nil {
		if !errkind.Is(u.tampered, errkind.Mode) {
			return nil, u.tampered
		}
		cfg.Log.ErrorContext(ctx, "the unit is tampered", "reason", u.tampered)
		return u, nil
	}
	return u, u.load()
}

func (cfg Config) withDefaults() Config {
	if cfg.Guard == nil {
		cfg.Guard = FileGuard(filepath.Join(cfg.Dir, "guard"))
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.HardwareID == "" {
		cfg.HardwareID = HardwareID
	}
	return cfg
}

// load reads what the unlocked unit keeps.
func (u *Unit) load() error {
	removeTemporaries(u.cfg.Dir)
	removeTemporaries(u.partitionDir())
	var err error
	if u.serials, err = openSerials(filepath.Join(u.cfg.Dir, "serial.json"), u.id.ModuleID); err != nil {
		return err
	}
	if u.partitions, err = u.readPartitions(); err != nil {
		return err
	}
	if u.counters, err = u.openCounters(); err != nil {
		return err
	}
	if exists(u.factoryMarker()) {
		return u.finishFactory()
	}
	return nil
}

// Close ends the use of the folder and erases every secret. Serve must have returned.
func (u *Unit) Close() error {
	var errs []error
	if u.counters != nil {
		errs = append(errs, u.counters.close())
	}
	if u.rtc != nil && u.tampered == nil {
		errs = append(errs, u.rtc.save())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forget()
	return errors.Join(append(errs, u.lock.Close())...)
}

// forget erases the secrets. The caller holds mu.
func (u *Unit) forget() {
	if u.root != nil {
		u.root.Destroy()
	}
	u.root, u.boxes, u.signer, u.decrypt = nil, nil, nil, nil
}

// ready returns why the unit does not work, nil if it does. The caller holds mu.
func (u *Unit) ready() error {
	if u.tampered != nil {
		return u.tampered
	}
	if u.boxes == nil {
		return errkind.Errorf(errkind.Unavailable, "the unit is shutting down")
	}
	return nil
}

func lockDir(dir string) (*os.File, error) {
	if !exists(dir) {
		return nil, errkind.Errorf(errkind.NotFound, "no unit at %s; make one with 'hsmd init --state %s'", dir, dir)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	// A process that another one is just making has copies of its descriptors, and of
	// the lock, until it runs its program.
	for try := 0; ; try++ {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || try == 20 {
			break
		}
		time.Sleep(25 * time.Millisecond)
	}
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		err = errkind.Errorf(errkind.Mode, "the unit in %s is in use by another hsmd; stop it first", dir)
	default:
		err = fmt.Errorf("lock the state folder: %w", err)
	}
	return nil, errors.Join(err, f.Close())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removeTemporaries deletes what an interrupted atomic write left.
func removeTemporaries(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, ".*.*"))
	for _, path := range left {
		_ = os.Remove(path)
	}
}
