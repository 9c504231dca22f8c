package registry

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
)

// stored is a record as it is in the store: with the write that made it so. Who
// does not hear of his write finds it there and knows it for his own.
type stored struct {
	lifecycle.Record
	Write string `json:"write"`
}

// Swap implements VCMs.
func (e *Etcd) Swap(ctx context.Context, id string, rev Rev, next lifecycle.Record) (Rev, error) {
	if next.UUID != id {
		return 0, errkind.Errorf(errkind.Internal, "record of VCM %s under the key of %s", next.UUID, id)
	}
	w := &write{id: uuid.NewString(), key: e.prefix + id, rev: int64(rev)}
	p, err := json.Marshal(stored{Record: next, Write: w.id})
	if err != nil {
		return 0, errkind.Errorf(errkind.Internal, "VCM %s: %w", id, err)
	}
	w.op = clientv3.OpPut(w.key, string(p))
	return e.write(ctx, id, w)
}

// Remove implements VCMs.
func (e *Etcd) Remove(ctx context.Context, id string, rev Rev) error {
	// A record that is made anew, by a late attempt to make it, would be back.
	if err := e.claim.settle(ctx); err != nil {
		return err
	}
	w := &write{key: e.prefix + id, rev: int64(rev)}
	w.op = clientv3.OpDelete(w.key)
	_, err := e.write(ctx, id, w)
	return err
}

// write is one change of one record, however many attempts it takes.
type write struct {
	id  string // "" for a removal
	key string
	rev int64 // that the record must be at
	op  clientv3.Op
}

// write repeats w until its outcome is known or ctx ends. All attempts are the one
// write: at most one of them can meet the record at w.rev.
func (e *Etcd) write(ctx context.Context, id string, w *write) (rev Rev, err error) {
	for {
		err = persist(ctx, "write VCM "+id, func(ctx context.Context) (err error) {
			rev, err = e.attempt(ctx, w)
			return err
		})
		if !errors.Is(err, errLapsed) {
			return rev, err
		}
		if _, err := e.claim.take(ctx); err != nil {
			return 0, err
		}
	}
}

func (e *Etcd) attempt(ctx context.Context, w *write) (Rev, error) {
	fence, _ := e.claim.held()
	resp, err := e.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(e.claim.key), "=", fence), clientv3.Compare(clientv3.ModRevision(w.key), "=", w.rev)).
		Then(w.op).
		Else(clientv3.OpGet(e.claim.key), clientv3.OpGet(w.key)).
		Commit()
	if err != nil {
		e.claim.doubted(fence)
		return 0, err
	}
	if resp.Succeeded {
		return Rev(resp.Header.Revision), nil
	}
	claim, record := resp.Responses[0].GetResponseRange().Kvs, resp.Responses[1].GetResponseRange().Kvs
	if rev, ok := w.happened(record); ok {
		return rev, nil
	}
	if len(claim) == 0 {
		return 0, errLapsed
	}
	if claim[0].ModRevision == fence {
		return 0, ErrConflict
	}
	if ours, err := e.claim.seen(claim[0]); err != nil {
		return 0, err
	} else if ours { // it was written anew meanwhile
		return 0, errOnceMore
	}
	return 0, ErrNotOwner
}

// happened reports whether an earlier attempt made the record what it is, be it
// ours or one that the client or the network made of it. Nobody else removes a
// record: one that is gone, we removed.
func (w *write) happened(record []*mvccpb.KeyValue) (Rev, bool) {
	if len(record) == 0 {
		return 0, w.id == "" && w.rev != 0
	}
	var there struct{ Write string }
	if json.Unmarshal(record[0].Value, &there) != nil || w.id == "" || there.Write != w.id {
		return 0, false
	}
	return Rev(record[0].ModRevision), true
}
