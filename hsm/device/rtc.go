package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	// maxJump is how far the clock may be set once partitions exist.
	maxJump = 24 * time.Hour
	// maxAdjust is the largest error that may be corrected gradually.
	maxAdjust = 5 * time.Minute
	// slewRate is how much slower or faster the clock runs meanwhile: 5 ms a second.
	slewRate = 200
)

// rtc is the module's clock: the host's clock plus a stored correction.
//
// It does not run backwards by itself: when the host's clock is set back, the
// module's stands still until the host's has caught up, also over a restart.
// The time it last showed is stored each minute and at the end, so a crash may
// cost up to a minute of that memory. A correction by hand is the only way back.
type rtc struct {
	path string
	host clock.Clock

	mu   sync.Mutex
	s    clockFile
	last time.Time
}

// clockFile is clock.json.
type clockFile struct {
	Offset time.Duration `json:"offset"`
	// A gradual correction began at SlewFrom (host's time) and will end with Offset+Slew.
	Slew     time.Duration `json:"slew"`
	SlewFrom time.Time     `json:"slewFrom"`
	Floor    time.Time     `json:"floor"`
	// Peak is the latest time shown since the clock was last set freely. Setting
	// back is measured from it, so that many small steps do not make a large one.
	Peak time.Time `json:"peak"`
}

func openClock(dir string, host clock.Clock, log *slog.Logger) (*rtc, error) {
	c := &rtc{path: filepath.Join(dir, "clock.json"), host: host}
	p, err := atomicfile.Read(c.path, maxState)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	if err := decodeStrict(p, &c.s); err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "%s is damaged: %w", c.path, err)
	}
	c.last = c.s.Floor
	if behind := c.s.Floor.Sub(c.shifted(host.Now())); behind > time.Second {
		log.Warn("the host's clock is behind the time the module last showed; the module's clock waits", "behind", behind)
	}
	return c, nil
}

// Now is the module's time.
func (c *rtc) Now() time.Time { return c.both().Module }

func (c *rtc) both() hsmapi.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	host := c.host.Now()
	t := c.shifted(host)
	if t.Before(c.last) {
		t = c.last
	}
	c.last = t
	return hsmapi.Time{Module: t.UTC(), Host: host.UTC()}
}

func (c *rtc) shifted(host time.Time) time.Time {
	host = host.Round(0) // wall clock: the offset is to the host's calendar
	done := max(host.Sub(c.s.SlewFrom), 0) / slewRate
	if c.s.Slew < 0 {
		return host.Add(c.s.Offset + max(-done, c.s.Slew))
	}
	return host.Add(c.s.Offset + min(done, c.s.Slew))
}

// set sets the clock by a jump of any length up to limit (0 for none).
func (c *rtc) set(to time.Time, limit time.Duration) error {
	if to.Year() < 2020 || to.Year() >= 2100 {
		return errkind.Errorf(errkind.Invalid, "the module's clock cannot be set to %s; wanted is a date from 2020 to 2099", to.UTC().Format(time.RFC3339))
	}
	now := c.Now()
	if by := to.Sub(now).Abs(); limit > 0 && by > limit {
		return errkind.Errorf(errkind.Refused, "the clock may be set by at most %s once VCMs exist: the module's clock says %s, the host's %s",
			limit, now.UTC().Format(time.RFC3339), c.host.Now().UTC().Format(time.RFC3339))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := clockFile{Offset: to.Sub(c.host.Now().Round(0)), Floor: to, Peak: to}
	if limit > 0 {
		next.Peak = latest(c.s.Peak, c.last, to)
		if next.Peak.Sub(to) > limit {
			return errkind.Errorf(errkind.Refused, "the clock has shown %s since VCMs exist: it is not set back by more than %s from there",
				next.Peak.UTC().Format(time.RFC3339), limit)
		}
	}
	if err := c.write(next); err != nil {
		return err
	}
	c.s, c.last = next, to
	return nil
}

// adjust lets the clock approach to gradually.
func (c *rtc) adjust(to time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	host := c.host.Now().Round(0)
	now := c.shifted(host)
	by := to.Sub(now)
	if by.Abs() > maxAdjust {
		return errkind.Errorf(errkind.Refused, "the clock is wrong by %s: more than %s is not adjusted gradually; stop every VCM and set it", by, maxAdjust)
	}
	next := clockFile{Offset: now.Sub(host), Slew: by, SlewFrom: host, Floor: c.last, Peak: latest(c.s.Peak, c.last)}
	if err := c.write(next); err != nil {
		return err
	}
	c.s = next
	return nil
}

// save stores how far the clock has come.
func (c *rtc) save() error {
	c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.s
	next.Floor, next.Peak = c.last, latest(c.s.Peak, c.last)
	return c.write(next)
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

func (c *rtc) write(s clockFile) error {
	p, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(c.path, p, 0o600); err != nil {
		return errkind.Errorf(errkind.Unavailable, "store the clock: %w", err)
	}
	return nil
}

// SetTime sets the module's clock, see hsmapi.SetTime.
func (u *Unit) SetTime(in hsmapi.SetTime) (hsmapi.Time, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.ready(); err != nil {
		return hsmapi.Time{}, err
	}
	if in.Adjust {
		if err := u.rtc.adjust(in.Time); err != nil {
			return hsmapi.Time{}, err
		}
		return u.rtc.both(), nil
	}
	for _, p := range u.partitions {
		if p.holder != nil {
			return hsmapi.Time{}, errkind.Errorf(errkind.Mode, "VCM %s is running: stop every VCM to set the clock, or adjust it gradually", p.UUID)
		}
	}
	limit := time.Duration(0)
	if len(u.partitions) > 0 {
		limit = maxJump
	}
	if err := u.rtc.set(in.Time, limit); err != nil {
		return hsmapi.Time{}, err
	}
	return u.rtc.both(), nil
}

// Time reads the module's clock and the host's.
func (u *Unit) Time() hsmapi.Time { return u.rtc.both() }
