package device

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// compactAt is the journal's size that makes it be rewritten.
const compactAt = 4 << 20

// counters are the partitions' monotonic counters. They are known by module id,
// which is never reused: a new partition of an old UUID starts at 0.
//
// Raises that come while the disk is busy share one batch and one fsync.
type counters struct {
	path string
	mac  []byte

	mu     sync.Mutex
	values map[uint32]uint64 // durable
	open   *batch            // collects raises; nil when there are none
	failed error             // a write failed: the file's end is unknown
	closed bool

	wake chan struct{}
	quit chan struct{}
	done chan struct{}

	// owned by the committer
	f    *os.File
	size int64
	seq  uint64
}

type batch struct {
	raises map[uint32]uint64
	done   chan struct{}
	err    error // valid after done
}

func (u *Unit) openCounters() (*counters, error) {
	mac, err := sealed.Derive(u.root.Bytes(), "tesserae device counters v1")
	if err != nil {
		return nil, err
	}
	live := make(map[uint32]bool, len(u.partitions))
	for _, p := range u.partitions {
		if n, err := counterID(p.ModuleID); err == nil {
			live[n] = true
		}
	}
	return openCounters(filepath.Join(u.cfg.Dir, "counters"), mac, live)
}

func counterID(moduleID string) (uint32, error) {
	n, err := strconv.ParseUint(moduleID, 10, 32)
	return uint32(n), err
}

// openCounters reads the journal, keeps the counters in live and rewrites it.
func openCounters(path string, mac []byte, live map[uint32]bool) (*counters, error) {
	values, err := readJournal(path, mac)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(values, func(id uint32, _ uint64) bool { return !live[id] })
	c := &counters{path: path, mac: mac, values: values, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	if err := c.compact(values); err != nil {
		return nil, err
	}
	go c.commitAll()
	return c, nil
}

// value returns where a counter durably stands.
func (c *counters) value(moduleID string) uint64 {
	id, err := counterID(moduleID)
	if err != nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.values[id]
}

// drop forgets a destroyed partition's counter; the next rewrite leaves it out.
func (c *counters) drop(moduleID string) {
	if id, err := counterID(moduleID); err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.values, id)
	}
}

// raise raises a counter to v if that is higher and returns where it durably stands.
func (c *counters) raise(ctx context.Context, moduleID string, v uint64) (uint64, error) {
	id, err := counterID(moduleID)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	if now := c.values[id]; v <= now || c.failed != nil || c.closed {
		err := c.failed
		if c.closed {
			err = errkind.Errorf(errkind.Unavailable, "the unit is shutting down")
		}
		c.mu.Unlock()
		if v <= now {
			return now, nil
		}
		return 0, err
	}
	if c.open == nil {
		c.open = &batch{raises: map[uint32]uint64{}, done: make(chan struct{})}
	}
	b := c.open
	b.raises[id] = max(b.raises[id], v)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return 0, errkind.Errorf(errkind.Unavailable, "counter: %w", context.Cause(ctx))
	}
	if b.err != nil {
		return 0, b.err
	}
	return c.value(moduleID), nil
}

// commitAll writes batches until the counters are closed.
func (c *counters) commitAll() {
	defer close(c.done)
	for {
		select {
		case <-c.wake:
			c.commit()
		case <-c.quit:
			c.commit() // what came before closed was set
			return
		}
	}
}

func (c *counters) commit() {
	c.mu.Lock()
	b := c.open
	c.open = nil
	failed := c.failed
	c.mu.Unlock()
	if b == nil {
		return
	}
	if failed == nil {
		failed = c.append(b.raises)
	}
	c.mu.Lock()
	if failed != nil {
		c.failed, b.err = failed, failed
	} else {
		for id, v := range b.raises {
			c.values[id] = max(c.values[id], v)
		}
	}
	c.mu.Unlock()
	close(b.done)
	if failed == nil && c.size > compactAt {
		c.mu.Lock()
		defer c.mu.Unlock()
		if err := c.compact(c.values); err != nil {
			c.failed = err
		}
	}
}

func (c *counters) append(raises map[uint32]uint64) error {
	p := encodeBatch(c.mac, c.seq, raises)
	if _, err := c.f.WriteAt(p, c.size); err != nil {
		return c.failure(err)
	}
	if err := c.f.Sync(); err != nil {
		return c.failure(err)
	}
	c.size += int64(len(p))
	c.seq++
	return nil
}

// failure stops the counters until a restart: after a failed write or fsync
// nobody knows what the disk holds.
func (c *counters) failure(err error) error {
	return errkind.Errorf(errkind.Unavailable, "the unit cannot store its counters and must be restarted: %w", err)
}

// compact replaces the journal by one batch.
func (c *counters) compact(values map[uint32]uint64) error {
	p := append([]byte(journalHead), encodeBatch(c.mac, 0, values)...)
	if err := atomicfile.Write(c.path, p, 0o600); err != nil {
		return fmt.Errorf("rewrite counters: %w", err)
	}
	f, err := os.OpenFile(c.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("rewrite counters: %w", err)
	}
	if c.f != nil {
		_ = c.f.Close()
	}
	c.f, c.size, c.seq = f, int64(len(p)), 1
	return nil
}

// close commits what is waiting and ends the committer.
func (c *counters) close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	close(c.quit)
	<-c.done
	return c.f.Close()
}
