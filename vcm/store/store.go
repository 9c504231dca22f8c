// Package store keeps the state of one VCM: sealed, crash-safe, within a quota,
// and not to be rolled back unnoticed.
//
// It is an ordered index in memory and one append-only file of sealed records,
// reached only through the descriptor of the data directory. A commit is the
// keys and values that it changes, sealed together under the partition key,
// written and synced once. Values are in memory, except those that
// Config.Cold names, which are read back from the log. When half of the log is
// garbage, the state is copied into a second one, and the log goes on there.
// Commits go on meanwhile; what they change is copied after, and they wait for
// the last of it only, some milliseconds.
//
// # Why a log
//
// A vend writes five keys of about a kilobyte together. In a B+tree file each
// value was sealed, placed in its page and counted in a keyed sum on its own;
// a vend took 90 µs of processor there, client and TLS included, with 333
// allocations. Here a commit is one box, one write, one sync, and nothing is
// opened to be read: 28 µs and 60 allocations, 33 µs with a disk that syncs,
// beside 20 µs and 37 of a bare echo (BenchmarkIssueCreditToken64). The price is
// memory: some 60 bytes a key, and the values that are not cold.
//
// # Commits
//
// A function runs at once, on what the functions before it have left, and its caller
// waits for the commit that makes it durable. If another one runs just then, who runs
// that goes on with it: callers wait for commits only, not for each other. One
// goroutine writes the commits: while one is on its way to the disk, the functions
// of the next one run.
//
// A sync costs 50 µs of processor and holds one of the runtime's processors for its
// 100 to 170 µs, of which the disk has 65. To sync whenever there is something
// makes commits of four callers where 64 are busy, and half of the machine is then
// spent on syncs. A commit therefore waits for four of five callers that it may
// expect, those of the last one and those who have come since, until a millisecond
// after the last one: that makes it as large as what comes during four syncs.
// With one processor more in the runtime than in the machine it gained a fifth in the
// benchmark, but a VCM that is killed and comes back under 64 clients lost by it.
// Nothing that can be told from the noise came of a sync that the kernel does on its
// own (io_submit), also where the next caller looks for its end and long slices of the
// VCM's threads let the kernel's thread in at once, or of beginning to write before it.
//
// # Durability
//
// Update returns once its writes are on the disk, and also once what its function
// has seen is, if that failed. A caller that comes alone never waits for company.
// Each caller's writes are undone if its function fails, and touch nobody else's;
// where a commit fails, so do those who went on from it. Readers see durable states
// only.
//
// A commit that a crash left unfinished was never acknowledged; Open removes
// it. If a later commit is there, it was finished and has been damaged since,
// which Open refuses.
//
// Who makes a store may have its first updates gathered: they are in the index only,
// where readers see them, until Settle makes one commit of them. A crash before
// leaves the store as new as it was, so nobody outside may know of it by then.
//
// # Rollback
//
// Every commit has a sequence number. Each record is bound to its file, its
// offset, and by the tag of the record before to everything before it, so that
// no single value or commit can be changed, moved, left out or taken back. Open
// compares the newest sequence number with the device's monotonic counter, so
// the whole file cannot be taken back either. The counter is raised RaiseEvery
// after the first commit it does not cover, and at Close. What remains
// undetected is a file taken back to a state that was the newest one less than
// RaiseEvery, plus the duration of one raise, before the last commit. A store
// that cannot raise the counter for MaxUnraised refuses updates, so the window
// never exceeds that.
//
// # Quota
//
// Space in use is kept under Config.Quota less a reserve. Beyond it, updates
// fail with kind Limit and ReadOnly is true; deletions and Shrink may use the
// reserve. Nothing is ever deleted to make room. The log with its garbage is at
// most a quarter larger than the quota: beyond that, commits wait for the
// compaction. During one there is the second file besides.
package store

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

const (
	// RaiseEvery is how long a commit may wait for the device's counter.
	RaiseEvery = 100 * time.Millisecond
	// MaxUnraised is how long updates go on while the counter cannot be raised.
	MaxUnraised = 5 * time.Second
	// MinQuota is the smallest quota a store accepts.
	MinQuota = 1 << 20
	// MaxValue is the largest value in bytes.
	MaxValue = 1 << 20
	// MaxKey is the longest key in bytes.
	MaxKey = 1 << 10
)

// Counter is the device's monotonic counter of this partition.
type Counter interface {
	// Raise sets the counter to v if that is higher, durably, and answers
	// where it stands.
	Raise(ctx context.Context, v uint64) (uint64, error)
}

// Config is what a store needs.
type Config struct {
	Dir     *os.File // the data directory; nothing outside is opened, nothing at all after Open
	Key     []byte   // the partition key; not kept
	Counter Counter
	Quota   int64 // bytes
	// Cold names values that are read seldom, or are secrets: but for short ones
	// they stay in the log, sealed, and take no memory.
	Cold []Keys
	// Gather makes one commit of all that is written to a new store before Settle.
	Gather bool
	Log    *slog.Logger
}

// Keys are those of a bucket that begin with Prefix.
type Keys struct{ Bucket, Prefix string }

// Store is an open store. It is safe for concurrent use.
type Store struct {
	cfg    Config
	key    *sealed.Key
	raiser *raiser

	// state guards what functions write to and readers take their snapshot of.
	state     turn
	batch     batch // for the next commit
	flight    batch // the commit that is being written
	log       *logFile
	seq       uint64 // the newest durable commit
	gathering bool   // until Settle
	closed    bool
	failed    error     // set once a commit's outcome is unknown
	late      []*call   // for whom there was no room in the batch
	led       sync.Cond // leading has become false
	resting   bool      // there is nothing to commit, and the next caller leads
	leading   bool      // a caller commits instead of the committer
	awaited   int       // how many callers are to come before come is sent to; 0: it is not

	come   chan struct{} // there is something for the committer, or what it waits for has come; closed by Close
	idle   chan struct{} // closed when the committer has ended
	broken chan struct{} // closed when failed is set
	calls  sync.Pool     // those not in use

	// spare is the other file, for the next compaction; nil while readers use it.
	spare atomic.Pointer[os.File]

	// These belong to the committer.
	writer     writer
	expected   int // callers, as far as the last commit shows
	patience   *time.Timer
	compaction chan struct{} // closed when the one that runs has ended; nil: none runs

	writing sync.Mutex   // held while a commit is written, or another log is taken
	retry   atomic.Int64 // length of the log from which compaction is tried again

	used     atomic.Int64
	readOnly atomic.Bool
}

// Open opens the store in cfg.Dir, or makes it. The error's kind is Integrity
// if the file was changed, replaced or rolled back, or the key is another's.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Quota < MinQuota {
		return nil, errkind.Errorf(errkind.Invalid, "disk quota of %d bytes: at least %d are needed", cfg.Quota, MinQuota)
	}
	key, err := sealed.New(cfg.Key, "tesserae store log v1")
	if err != nil {
		return nil, err
	}
	cfg.Key = nil // the caller wipes its copy
	s := &Store{cfg: cfg, key: key, come: make(chan struct{}, 1), idle: make(chan struct{}), broken: make(chan struct{}), resting: true}
	s.state.run, s.led.L = s.join, &s.state
	s.writer.key = key
	s.batch = batch{index: newIndex(), owners: new(owners), cold: cfg.Cold}
	s.flight = s.batch

	if err := s.openLog(ctx); err != nil {
		return nil, err
	}
	if err := s.admit(ctx); err != nil {
		return nil, errors.Join(err, s.closeFiles(s.log))
	}
	s.gathering = cfg.Gather && s.seq == 0
	s.batch.seq = s.seq + 1
	s.raiser = newRaiser(cfg.Counter, cfg.Log, s.seq)
	s.patience = time.NewTimer(companyTime)
	go s.committer()
	return s, nil
}

// Settle commits what Config.Gather had gathered; without that it does nothing. If
// it fails, what was gathered is lost. Nobody may be reading.
func (s *Store) Settle(ctx context.Context) error {
	s.state.Lock()
	if s.gathering && s.log != nil && s.log.refs.Load() > 1 {
		s.state.Unlock() // a reader sees what a commit takes out of the memory
		return errkind.Errorf(errkind.Internal, "the store is settled while it is read")
	}
	s.gathering = false
	s.state.Unlock()
	return s.Update(ctx, func(*Tx) error { return nil })
}

// openLog reads the log, making it if the device's counter says that there
// never was one.
func (s *Store) openLog(ctx context.Context) error {
	files, err := openPair(s.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.create(ctx); err == nil {
			files, err = openPair(s.cfg.Dir)
		}
	}
	if err != nil {
		return errkind.Errorf(errkind.Of(err), "open the store: %w", err)
	}
	var spare *os.File
	if s.log, spare, err = files.choose(s.key); err == nil {
		s.seq, err = s.log.replay(s.key, s.load)
	}
	if err == nil && (files.made || s.seq == 0) {
		// The names of files that were made just now, or by a process that was
		// killed before the first commit, shall last.
		if err = s.cfg.Dir.Sync(); err != nil {
			err = errkind.Errorf(errkind.Internal, "sync the data directory: %w", err)
		}
	}
	if err != nil {
		_ = files.close()
		return err
	}
	s.spare.Store(spare)
	return nil
}

// create makes an empty log: whole under its name, or not there.
func (s *Store) create(ctx context.Context) error {
	counter, err := s.cfg.Counter.Raise(ctx, 0)
	switch {
	case err != nil:
		return errkind.Errorf(errkind.Of(err), "read the module's counter: %w", err)
	case counter > 0:
		return errkind.Errorf(errkind.Integrity,
			"the store is missing, but the module has seen its commit %d; restore the newest copy of the VCM's data", counter)
	}
	f, _, err := openOther(s.cfg.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	l, err := newFile(f, s.key)
	if err == nil {
		err = newCopier(s, l, nil).finish()
	}
	if err != nil {
		return errkind.Errorf(errkind.Internal, "make the store: %w", err)
	}
	return install(s.cfg.Dir)
}

// load takes the operations of a record into the index.
func (s *Store) load(off int64, body []byte) error {
	var b *bucket
	return operations(body, func(o operation) error {
		if b == nil || b.name != o.bucket {
			b = s.batch.bucket(o.bucket)
		}
		if !o.put {
			s.batch.index.remove(b, o.key)
			return nil
		}
		var it item
		if b.staysInLog(o.key, len(o.value)) {
			it = newItem(make([]byte, 0, len(o.key)), o.key, nil, uint64(off)<<innerBits|uint64(o.inner))
			it.size, it.cold = uint32(len(o.value)), true
		} else {
			it = newItem(make([]byte, 0, len(o.key)+len(o.value)), o.key, o.value, 0)
		}
		s.batch.index.set(b, it)
		return nil
	})
}

// admit checks the log against the counter, which it raises to the log's end.
func (s *Store) admit(ctx context.Context) error {
	counter, err := s.cfg.Counter.Raise(ctx, s.seq)
	if err != nil {
		return errkind.Errorf(errkind.Of(err), "raise the module's counter: %w", err)
	}
	if counter > s.seq {
		return errkind.Errorf(errkind.Integrity,
			"the store was rolled back: its newest commit is %d, the module has seen %d; restore the newest copy of the VCM's data", s.seq, counter)
	}
	// This is the newest state: what else there is was never acknowledged.
	if err := errors.Join(s.log.cutTail(), empty(s.spare.Load())); err != nil {
		return errkind.Errorf(errkind.Internal, "tidy the store: %w", err)
	}
	// Where the last process stopped for want of room, this one does not begin
	// by trying again.
	s.readOnly.Store(s.space() > s.margin())
	s.measure()
	return nil
}

// empty makes f so, if it is not.
func empty(f *os.File) error {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	return f.Truncate(0)
}

// View runs fn on a snapshot.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return errkind.Errorf(errkind.Unavailable, "store: %w", err)
	}
	s.state.Lock()
	if s.log == nil {
		s.state.Unlock()
		return errClosed()
	}
	tx := &Tx{key: s.key, log: s.log, buckets: s.snapshot()}
	tx.log.refs.Add(1)
	s.state.Unlock()
	defer func() { _ = tx.log.release() }()
	defer tx.end()
	return fn(tx)
}

// snapshot is the index without what is not durable yet, unless that is gathered.
// The caller holds state.
func (s *Store) snapshot() map[string]*bucket {
	if s.gathering {
		return s.batch.index.snapshot(s.batch.owners)
	}
	return s.batch.index.snapshot(s.batch.owners, s.batch.changes, s.flight.changes)
}

// durable is a snapshot and the number of its commit.
func (s *Store) durable() (map[string]*bucket, uint64) {
	s.state.Lock()
	defer s.state.Unlock()
	return s.snapshot(), s.seq
}

// ending reports whether there will be no more commits.
func (s *Store) ending() bool {
	s.state.Lock()
	defer s.state.Unlock()
	return s.closed || s.failed != nil
}

// Update runs fn in a transaction that many callers may share and returns once
// it is durable. fn must have no effects besides tx and must not call the store
// again; an error from fn undoes fn's writes only and is returned. If ctx ends
// before fn has begun, fn is not run; after that the outcome is waited for.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.update(ctx, fn, false)
}

// Shrink is Update for transactions that free space (deletions, compaction):
// it is allowed also when the store is over its quota.
func (s *Store) Shrink(ctx context.Context, fn func(*Tx) error) error {
	return s.update(ctx, fn, true)
}

// Close waits for the updates in progress, raises the counter to the last
// commit and closes the file. Later calls of the store fail.
func (s *Store) Close() error {
	s.state.Lock()
	if s.closed {
		s.state.Unlock()
		return nil
	}
	s.closed = true
	s.joinLate()
	for s.leading {
		s.led.Wait()
	}
	s.state.Unlock()
	close(s.come) // nobody sends to it any more
	<-s.idle
	if s.compaction != nil { // it was the committer's
		<-s.compaction
	}
	raiseErr := s.raiser.close()
	s.state.Lock()
	log := s.log
	s.log = nil
	s.batch.dropAll() // what was gathered
	s.state.Unlock()
	if err := s.closeFiles(log); err != nil {
		return errkind.Errorf(errkind.Internal, "close the store: %w", err)
	}
	return raiseErr
}

func (s *Store) closeFiles(log *logFile) error {
	var err error
	if spare := s.spare.Swap(nil); spare != nil {
		err = spare.Close()
	}
	return errors.Join(err, log.release())
}

// DiskUsed is the space in use, in bytes.
func (s *Store) DiskUsed() int64 { return s.used.Load() }

// ReadOnly reports whether the store is over its quota or its disk is full.
func (s *Store) ReadOnly() bool { return s.readOnly.Load() }

// Broken is closed when the store begins to refuse every update; see Failed.
func (s *Store) Broken() <-chan struct{} { return s.broken }

// Failed returns why the store refuses every update until it is opened again,
// nil while it works.
func (s *Store) Failed() error {
	s.state.Lock()
	defer s.state.Unlock()
	return s.failed
}
