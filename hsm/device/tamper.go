package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func (u *Unit) tamperMarker() string  { return filepath.Join(u.cfg.Dir, "tampered") }
func (u *Unit) factoryMarker() string { return filepath.Join(u.cfg.Dir, "factory-pending") }

func (u *Unit) tamperedError(reason string) error {
	return errkind.Errorf(errkind.Mode, "the unit %s is tampered: %s; its keys are gone, return it to the maker", u.id.ESN, reason)
}

// Tamper is a tamper event on the unit in cfg.Dir: the marker, then the guard's
// secret is erased, so that everything sealed becomes useless. It needs no lock: a
// running unit notices the marker and erases what it holds in memory.
func Tamper(cfg Config) error {
	cfg = cfg.withDefaults()
	if _, err := readIdentity(cfg.Dir); err != nil {
		return err
	}
	err := atomicfile.Write(filepath.Join(cfg.Dir, "tampered"), []byte("tampered\n"), 0o600)
	// The guard goes even when the marker could not be written.
	if err := errors.Join(err, cfg.Guard.Erase()); err != nil {
		return fmt.Errorf("tamper: %w", err)
	}
	return nil
}

// tamperEvent erases the running unit's secrets and cuts off every VCM.
func (u *Unit) tamperEvent() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tampered != nil {
		return
	}
	u.tampered = u.tamperedError("it saw a tamper event")
	u.cfg.Log.Error("tamper event: secrets erased", "esn", u.id.ESN)
	u.forget()
	for ch := range u.channels {
		go ch.dismiss() // ends with the channel, whose owner waits
	}
	if err := u.cfg.Guard.Erase(); err != nil {
		u.cfg.Log.Error("the guard could not be erased", "error", err)
	}
}

// Factory returns the unit to factory state: partitions and their keys are
// destroyed; ESN, unit key, warrant and the counter of module ids stay. It is
// refused while a VCM holds its key. An interrupted return is finished by the
// next Open.
func (u *Unit) Factory() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.ready(); err != nil {
		return err
	}
	for _, p := range u.partitions {
		if p.holder != nil {
			return errkind.Errorf(errkind.Mode, "VCM %s is running; stop every VCM before the return to factory state", p.UUID)
		}
	}
	if err := atomicfile.Write(u.factoryMarker(), []byte("factory\n"), 0o600); err != nil {
		return fmt.Errorf("factory state: %w", err)
	}
	return u.finishFactory()
}

func (u *Unit) finishFactory() error {
	for uuid := range u.partitions {
		if err := u.erasePartition(uuid); err != nil {
			return err
		}
	}
	if err := os.Remove(u.factoryMarker()); err != nil {
		return fmt.Errorf("factory state: %w", err)
	}
	return atomicfile.SyncDir(u.cfg.Dir)
}
