package registry

import (
	"context"
	"encoding/json"
	"log/slog"
	"sort"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
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

// take writes the claim anew, and again until it knows that it did. ErrNotOwner
// comes with the claim that is in the way.
func (o *Ownership) take(ctx context.Context) (previous Claim, err error) {
	select {
	case o.taking <- struct{}{}:
		defer func() { <-o.taking }()
	case <-ctx.Done():
		return Claim{}, unavailable("claim unit "+o.esn, context.Cause(ctx))
	}
	err = persist(ctx, "claim unit "+o.esn, func(ctx context.Context) error {
		there, err := o.tryTake(ctx)
		if there.Run != o.self.Run { // or it is ours, by an attempt whose answer was lost
			previous = there
		}
		return err
	})
	return previous, err
}

// tryTake is one attempt of take.
func (o *Ownership) tryTake(ctx context.Context) (previous Claim, err error) {
	resp, err := o.client.Get(ctx, o.key)
	if err != nil {
		return Claim{}, err
	}
	var rev int64
	if len(resp.Kvs) > 0 {
		rev = resp.Kvs[0].ModRevision
		if previous, err = parseClaim(resp.Kvs[0].Value); err != nil {
			return Claim{}, err
		}
		if o.inTheWay(previous) {
			return previous, ErrNotOwner
		}
	}
	lease, err := o.client.Grant(ctx, int64(claimTTL/time.Second))
	if err != nil {
		return previous, err
	}
	value, err := json.Marshal(o.self)
	if err != nil {
		return previous, errkind.Errorf(errkind.Integrity, "claim: %w", err)
	}
	txn, err := o.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(o.key), "=", rev)).
		Then(clientv3.OpPut(o.key, string(value), clientv3.WithLease(lease.ID))).
		Commit()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err != nil:
		o.unsure = true
		return previous, err
	case !txn.Succeeded:
		return previous, errOnceMore // somebody was quicker, maybe a late attempt of our own
	}
	o.rev, o.lease, o.unsure = txn.Header.Revision, lease.ID, false
	return previous, nil
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
