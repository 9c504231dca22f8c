// Package registry keeps the records of one unit's VCMs in etcd: compare and
// swap on revisions, consistent snapshots, and a watch that misses nothing.
//
// One orchestrator owns a unit at a time. Ownership is a claim record under a
// lease; every write is fenced by the revision that last wrote the claim, so an
// orchestrator that lost its claim can no longer change anything. etcd's locks
// are not used: they do not exclude.
//
// # Answers that get lost
//
// A request to etcd may be lost, its answer may be, and it may arrive late. Calls
// are therefore repeated until their context ends. Each write has an identity,
// stored with the record, by which its later attempts recognise the one that took
// effect: a write is done once, and who made it learns so. If the context ends
// first the write's outcome is unknown until Get tells it: before it reads, Get
// writes the claim anew, and what has not arrived under the old one never will.
//
// # Keys
//
//	/tesserae/1/units/ESN/claim       who owns the unit, JSON (leased)
//	/tesserae/1/units/ESN/vcms/UUID   one lifecycle.Record and its last write, JSON
package registry

import (
	"context"
	"iter"
	"time"

	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

// Rev is a revision of the registry; each change has a higher one. 0 is before
// all changes: a record that must not exist yet.
type Rev int64

// Entry is a record and the revision that wrote it.
type Entry struct {
	Record lifecycle.Record
	Rev    Rev
}

// Change is one change of one record.
type Change struct {
	UUID    string
	Rev     Rev
	Removed bool
	Record  lifecycle.Record // zero when removed
}

// VCMs are the records of one unit's VCMs. Errors have kinds: NotFound for no
// such record, Mode for a record that changed meanwhile (ErrConflict) or a lost
// claim (ErrNotOwner), Unavailable when the store could not be reached until the
// context ended; of a write it is then not known whether it happened.
type VCMs interface {
	// Get returns a record and its revision. No write that was called before and
	// had no answer takes effect after it.
	Get(ctx context.Context, uuid string) (lifecycle.Record, Rev, error)
	// Swap stores next only if the record is still at rev, and returns its new
	// revision. It is the one write.
	Swap(ctx context.Context, uuid string, rev Rev, next lifecycle.Record) (Rev, error)
	// Remove deletes the record only if it is still at rev. One that is gone
	// already is no error.
	Remove(ctx context.Context, uuid string, rev Rev) error
	// List returns all records in the order of their creation.
	List(ctx context.Context) ([]Entry, error)
	// Snapshot is List with the revision at which it was taken; Watch from it
	// misses nothing.
	Snapshot(ctx context.Context) ([]Entry, Rev, error)
	// Watch yields every change after from until the context ends. A gap that
	// cannot be filled (the store dropped old revisions) ends it with
	// ErrCompacted: take a new snapshot.
	Watch(ctx context.Context, from Rev) iter.Seq2[Change, error]
}

// Claim is who owns a unit.
type Claim struct {
	Owner string    `json:"owner"` // one orchestrator, with the state folder that it locks
	Run   string    `json:"run"`   // one run of it; Acquire makes it
	Host  string    `json:"host"`
	Boot  string    `json:"boot"` // the host's boot id
	Since time.Time `json:"since"`
}
