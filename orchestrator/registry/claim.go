package registry

import (
	"context"
	"encoding/json"
	"log/slog"
	"sort"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// claimTTL is how long after the last sign of life of its owner another
// orchestrator may take a unit over.
const claimTTL = 10 * time.Second

// Ownership is this orchestrator's claim on one unit. It is renewed until
// Release; when it lapsed (etcd out of reach for longer than the lease lives)
// it is taken up again, unless another orchestrator was quicker.
type Ownership struct {
	client *clientv3.Client
	esn    string
	key    string
	self   Claim
	log    *slog.Logger
	cancel context.CancelFunc
	done   chan struct{}
	lost   chan struct{}

	// writes is held for reading by each write, so that the claim is not renewed
	// under it: it would be refused for a claim that is still ours.
	writes sync.RWMutex

	mu     sync.Mutex
	rev    int64
	lease  clientv3.LeaseID
	unsure bool // the last attempt to take the claim may or may not have happened
}

// Acquire claims the unit for self. A claim left behind by an earlier run of
// the same orchestrator (the same Owner, whose state folder is locked) is
// replaced at once; another's is waited for until ctx ends. previous is the
// claim that was replaced, if any.
func Acquire(ctx context.Context, client *clientv3.Client, esn string, self Claim, log *slog.Logger) (o *Ownership, previous Claim, err error) {
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o = &Ownership{
		client: client, esn: esn, key: root + esn + "/claim", self: self, log: log,
		cancel: cancel, done: make(chan struct{}), lost: make(chan struct{}),
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

// take tries once. ErrNotOwner comes with the claim that is in the way.
func (o *Ownership) take(ctx context.Context) (Claim, error) {
	o.writes.Lock()
	defer o.writes.Unlock()
	resp, err := o.client.Get(ctx, o.key)
	if err != nil {
		return Claim{}, unavailable("claim unit "+o.esn, err)
	}
	var previous Claim
	var rev int64
	if len(resp.Kvs) > 0 {
		rev = resp.Kvs[0].ModRevision
		if err := json.Unmarshal(resp.Kvs[0].Value, &previous); err != nil {
			return Claim{}, errkind.Errorf(errkind.Integrity, "claim of unit %s: %w", o.esn, err)
		}
		if previous.Owner != o.self.Owner {
			return previous, ErrNotOwner
		}
	}
	lease, err := o.client.Grant(ctx, int64(claimTTL/time.Second))
	if err != nil {
		return Claim{}, unavailable("claim unit "+o.esn, err)
	}
	value, err := marshalClaim(o.self)
	if err != nil {
		return Claim{}, errkind.Errorf(errkind.Internal, "claim: %w", err)
	}
	txn, err := o.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(o.key), "=", rev)).
		Then(clientv3.OpPut(o.key, value, clientv3.WithLease(lease.ID))).
		Commit()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unsure = err != nil; o.unsure {
		return Claim{}, unavailable("claim unit "+o.esn, err)
	}
	if !txn.Succeeded {
		return previous, ErrNotOwner
	}
	o.rev, o.lease = txn.Header.Revision, lease.ID
	return previous, nil
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
	ctx, cancel := context.WithTimeout(ctx, claimTTL/4)
	defer cancel()
	o.mu.Lock()
	lease, unsure := o.lease, o.unsure
	o.mu.Unlock()
	if !unsure {
		if resp, err := o.client.KeepAliveOnce(ctx, lease); err == nil && resp.TTL > 0 {
			return nil
		}
	}
	// The lease is gone, or is not the claim's, or the store is out of reach: take
	// tells which.
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

// held returns the revision that fences writes, and whether that may be out of date.
func (o *Ownership) held() (rev int64, unsure bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rev, o.unsure
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
