package registry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sort"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// claimTTL is how long after the last sign of life of its owner another
// orchestrator may take a unit over.
const claimTTL = 10 * time.Second

// Ownership is this orchestrator's claim on one unit. It is renewed until
// Release; when it lapsed (etcd out of reach for longer than the lease lives)
// it is taken up again, unless another orchestrator was quicker.
//
// Its revision fences writes: each is made under the one that the claim had, and
// the store refuses it once the claim has been written anew. That is how a write
// whose answer was lost is told from one that may yet arrive: see settle.
type Ownership struct {
	client *clientv3.Client
	esn    string
	key    string
	self   Claim
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}
	lost   chan struct{}

	taking chan struct{} // holds a token while the claim is being written

	mu     sync.Mutex
	rev    int64
	lease  clientv3.LeaseID
	unsure bool  // the last attempt to take the claim may or may not have happened
	doubt  int64 // the last revision under which a write was made that had no answer
}

// Acquire claims the unit for self. A claim left behind by an earlier run of
// the same orchestrator (the same Owner, whose state folder is locked) is
// replaced at once; another's is waited for until ctx ends. previous is the
// claim that was replaced, if any.
func Acquire(ctx context.Context, client *clientv3.Client, esn string, self Claim, log *slog.Logger) (o *Ownership, previous Claim, err error) {
	self.Run = uuid.NewString()
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o = &Ownership{
		client: client, esn: esn, key: root + esn + "/claim", self: self, log: log,
		cancel: cancel, done: make(chan struct{}), lost: make(chan struct{}), taking: make(chan struct{}, 1),
	}
	for {
		previous, err = o.take(ctx)
		if err == nil {
			go o.keep(run)
			return o, previous, nil
		}
		if !errkind.Is(err, errkind.Mode) {
			cancel()
			return nil, Claim{}, err
		}
		select {
		case <-time.After(claimTTL / 10):
		case <-ctx.Done():
			cancel()
			return nil, Claim{}, errkind.Errorf(errkind.Unavailable, "unit %s is owned by orchestrator %s on %s since %s; stop that one first",
				esn, previous.Owner, previous.Host, previous.Since.Format(time.RFC3339))
		}
	}
}

// take writes the claim anew. ErrNotOwner comes with the claim that is in the way.
func (o *Ownership) take(ctx context.Context) (previous Claim, err error) {
	select {
	case o.taking <- struct{}{}:
		defer func() { <-o.taking }()
	case <-ctx.Done():
		return Claim{}, unavailable("claim unit "+o.esn, context.Cause(ctx))
	}
	for {
		there, rev, err := o.look(ctx)
		if err != nil {
			return there, err
		}
		if there.Run != o.self.Run { // or it is ours, by a renewal whose answer was lost
			previous = there
		}
		if err = o.replace(ctx, rev); !errors.Is(err, errMeanwhile) {
			return previous, err
		}
	}
}

// look reads the claim that there is.
func (o *Ownership) look(ctx context.Context) (c Claim, rev int64, err error) {
	var resp *clientv3.GetResponse
	err = persist(ctx, "claim unit "+o.esn, func(ctx context.Context) (err error) {
		resp, err = o.client.Get(ctx, o.key)
		return err
	})
	if err != nil || len(resp.Kvs) == 0 {
		return c, 0, err
	}
	if c, err = parseClaim(resp.Kvs[0].Value); err == nil && o.inTheWay(c) {
		err = ErrNotOwner
	}
	return c, resp.Kvs[0].ModRevision, err
}

// replace puts our claim, under a lease of its own by which it is known, in the
// place of the one at rev.
func (o *Ownership) replace(ctx context.Context, rev int64) error {
	value, err := json.Marshal(o.self)
	if err != nil {
		return errkind.Errorf(errkind.Internal, "claim: %w", err)
	}
	var lease *clientv3.LeaseGrantResponse
	err = persist(ctx, "claim unit "+o.esn, func(ctx context.Context) (err error) {
		lease, err = o.client.Grant(ctx, int64(claimTTL/time.Second))
		return err
	})
	if err != nil {
		return err
	}
	return persist(ctx, "claim unit "+o.esn, func(ctx context.Context) error {
		txn, err := o.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(o.key), "=", rev)).
			Then(clientv3.OpPut(o.key, string(value), clientv3.WithLease(lease.ID))).
			Else(clientv3.OpGet(o.key)).
			Commit()
		o.mu.Lock()
		defer o.mu.Unlock()
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound): // it took too long
			return errMeanwhile
		case err != nil:
			o.unsure = true
			return err
		case txn.Succeeded:
			o.rev = txn.Header.Revision
		default:
			kvs := txn.Responses[0].GetResponseRange().Kvs
			if len(kvs) == 0 || kvs[0].Lease != int64(lease.ID) {
				return errMeanwhile // somebody was quicker, maybe a late attempt of our own
			}
			o.rev = kvs[0].ModRevision
		}
		o.lease, o.unsure = lease.ID, false
		return nil
	})
}

// inTheWay reports whether c is a claim that this orchestrator must not replace:
// another's, or one of a later run of its own.
func (o *Ownership) inTheWay(c Claim) bool {
	rev, _ := o.held()
	return c.Owner != o.self.Owner || rev != 0 && c.Run != o.self.Run
}

func parseClaim(p []byte) (c Claim, err error) {
	if err := json.Unmarshal(p, &c); err != nil {
		return Claim{}, errkind.Errorf(errkind.Integrity, "claim of a unit: %w", err)
	}
	return c, nil
}

// keep renews the lease, and claims again when it lapsed.
func (o *Ownership) keep(ctx context.Context) {
	defer close(o.done)
	tick := time.NewTicker(claimTTL / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := o.renew(ctx); err != nil {
			if errkind.Is(err, errkind.Mode) {
				o.log.Error("unit lost", "esn", o.esn, "err", err)
				close(o.lost)
				return
			}
			o.log.Warn("claim not renewed", "esn", o.esn, "err", err)
		}
	}
}

func (o *Ownership) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTTL/2)
	defer cancel()
	o.mu.Lock()
	lease, unsure := o.lease, o.unsure
	o.mu.Unlock()
	if !unsure {
		err := persist(ctx, "renew the claim on unit "+o.esn, func(ctx context.Context) error {
			_, err := o.client.KeepAliveOnce(ctx, lease)
			return err
		})
		if err == nil || !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return err
		}
	}
	// The lease is gone, or is not the claim's.
	_, err := o.take(ctx)
	return err
}

// Lost is closed when another orchestrator has the unit.
func (o *Ownership) Lost() <-chan struct{} { return o.lost }

// Release gives the unit up.
func (o *Ownership) Release(ctx context.Context) error {
	o.cancel()
	<-o.done
	o.mu.Lock()
	lease := o.lease
	o.mu.Unlock()
	if _, err := o.client.Revoke(ctx, lease); err != nil {
		return unavailable("release unit "+o.esn, err)
	}
	return nil
}

// held returns the revision that fences writes, and the last one in doubt.
func (o *Ownership) held() (rev, doubt int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rev, o.doubt
}

// doubted notes that a write under rev had no answer: it happened, or did not, or
// is still on its way.
func (o *Ownership) doubted(rev int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doubt = max(o.doubt, rev)
}

// settle makes sure that no write without an answer arrives from now on: it is in
// the store, or refused for ever.
func (o *Ownership) settle(ctx context.Context) error {
	if rev, doubt := o.held(); doubt < rev {
		return nil
	}
	_, err := o.take(ctx)
	return err
}

// seen takes notice of the claim that a write met in the store instead of the one
// it was made under. It reports whether that is ours: an attempt to renew it of
// which we did not hear.
func (o *Ownership) seen(kv *mvccpb.KeyValue) (bool, error) {
	c, err := parseClaim(kv.Value)
	if err != nil || c.Run != o.self.Run {
		return false, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if kv.ModRevision > o.rev {
		o.rev, o.lease = kv.ModRevision, clientv3.LeaseID(kv.Lease)
	}
	return true, nil
}

func sortEntries(entries []Entry) {
	sort.Slice(entries, func(i, j int) bool {
		a, b := entries[i].Record, entries[j].Record
		if !a.Created.Equal(b.Created) {
			return a.Created.Before(b.Created)
		}
		return a.UUID < b.UUID
	})
}
