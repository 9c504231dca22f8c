package registry

import (
	"context"
	"errors"
	"iter"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrConflict  = errkind.Errorf(errkind.Mode, "the record changed meanwhile")
	ErrNotOwner  = errkind.Errorf(errkind.Mode, "another orchestrator owns the unit")
	ErrCompacted = errkind.Errorf(errkind.Unavailable, "the changes asked for are no longer kept; take a new snapshot")
)

// root of all keys; the number is the version of their layout.
const root = "/tesserae/1/units/"

// Etcd keeps the records of the unit that its claim owns.
type Etcd struct {
	client *clientv3.Client
	prefix string // of the unit's VCM records
	claim  *Ownership
}

// NewEtcd returns the records of the unit that claim owns.
func NewEtcd(claim *Ownership) *Etcd {
	return &Etcd{client: claim.client, prefix: root + claim.esn + "/vcms/", claim: claim}
}

// Get implements VCMs.
func (e *Etcd) Get(ctx context.Context, uuid string) (lifecycle.Record, Rev, error) {
	if err := e.claim.settle(ctx); err != nil {
		return lifecycle.Record{}, 0, err
	}
	var resp *clientv3.GetResponse
	err := persist(ctx, "read VCM "+uuid, func(ctx context.Context) (err error) {
		resp, err = e.client.Get(ctx, e.prefix+uuid)
		return err
	})
	if err != nil {
		return lifecycle.Record{}, 0, err
	}
	if len(resp.Kvs) == 0 {
		return lifecycle.Record{}, 0, errkind.Errorf(errkind.NotFound, "no VCM %s", uuid)
	}
	r, err := lifecycle.Parse(resp.Kvs[0].Value)
	return r, Rev(resp.Kvs[0].ModRevision), err
}

// List implements VCMs.
func (e *Etcd) List(ctx context.Context) ([]Entry, error) {
	entries, _, err := e.Snapshot(ctx)
	return entries, err
}

// Snapshot implements VCMs.
func (e *Etcd) Snapshot(ctx context.Context) ([]Entry, Rev, error) {
	const page = 200 // keeps each answer well under gRPC's limit
	var entries []Entry
	var at int64
	key, end := e.prefix, clientv3.GetPrefixRangeEnd(e.prefix)
	for {
		var resp *clientv3.GetResponse
		err := persist(ctx, "list VCMs", func(ctx context.Context) (err error) {
			resp, err = e.client.Get(ctx, key, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(at),
				clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
			return err
		})
		if err != nil {
			return nil, 0, err
		}
		if at == 0 {
			at = resp.Header.Revision // later pages show the same moment
		}
		for _, kv := range resp.Kvs {
			r, err := lifecycle.Parse(kv.Value)
			if err != nil {
				return nil, 0, err
			}
			entries = append(entries, Entry{Record: r, Rev: Rev(kv.ModRevision)})
		}
		if !resp.More {
			break
		}
		key = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	sortEntries(entries)
	return entries, Rev(at), nil
}

// Watch implements VCMs.
func (e *Etcd) Watch(ctx context.Context, from Rev) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ch := e.client.Watch(ctx, e.prefix, clientv3.WithPrefix(), clientv3.WithRev(int64(from)+1))
		for resp := range ch {
			if err := resp.Err(); err != nil {
				if ctx.Err() != nil {
					return
				}
				if errors.Is(err, rpctypes.ErrCompacted) || resp.CompactRevision != 0 {
					err = ErrCompacted
				} else {
					err = unavailable("watch VCMs", err)
				}
				yield(Change{}, err)
				return
			}
			for _, ev := range resp.Events {
				c, err := e.change(ev)
				if !yield(c, err) || err != nil {
					return
				}
			}
		}
	}
}

func (e *Etcd) change(ev *clientv3.Event) (Change, error) {
	c := Change{
		UUID:    strings.TrimPrefix(string(ev.Kv.Key), e.prefix),
		Rev:     Rev(ev.Kv.ModRevision),
		Removed: ev.Type == mvccpb.DELETE,
	}
	if c.Removed {
		return c, nil
	}
	var err error
	c.Record, err = lifecycle.Parse(ev.Kv.Value)
	return c, err
}
