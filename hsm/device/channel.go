package device

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"os"
	"slices"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/keyfd"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// holderGrace is how long an open waits for the previous holder's channel to be
// seen closed: a VCM that is restarted at once meets its own past.
const holderGrace = 500 * time.Millisecond

// channel is one VCM's device channel.
type channel struct {
	u        *Unit
	uuid     string
	moduleID string
	share    []byte // sealed to the unit; checked at attached
	attached time.Time
	speed    *share
	rated    hsmapi.Speed // what speed was made of
	conn     *fdrpc.Conn
	pace     pace // of its calls
	resumes  bool // it is for one who has the key already

	holds bool          // guarded by Unit.mu: this channel was given the key, or has resumed
	gone  chan struct{} // closed when it no longer holds it
}

// attach checks that the partition can be opened with what in carries and
// returns its channel, which the caller runs.
func (u *Unit) attach(in hsmapi.Attach, f *os.File) (*channel, error) {
	uc, err := fdrpc.FromFile(f)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "attach: %w", err)
	}
	ch, err := u.newChannel(in, uc)
	if err != nil {
		_ = uc.Close()
		return nil, err
	}
	return ch, nil
}

func (u *Unit) newChannel(in hsmapi.Attach, uc *net.UnixConn) (*channel, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	p, err := u.find(in.UUID)
	if err != nil {
		return nil, err
	}
	now := u.rtc.Now()
	if !in.Resume {
		key, err := u.key(p, in.Share, now) // so that the one who attaches learns why not
		if err != nil {
			return nil, err
		}
		clear(key)
	}
	if in.Speed.Unit > 0 {
		u.capacity.rate(in.Speed.Unit)
	}
	ch := &channel{
		u: u, uuid: p.UUID, moduleID: p.ModuleID, share: slices.Clone(in.Share), attached: now,
		speed: u.capacity.share(p.UUID, in.Speed), rated: in.Speed, resumes: in.Resume, gone: make(chan struct{}),
	}
	ch.conn = fdrpc.New(uc, ch.handle)
	u.channels[ch] = struct{}{}
	return ch, nil
}

// dismissal is how long a VCM may take to close a channel that ends.
const dismissal = time.Second

// run serves the channel until the VCM closes it or the context ends, and sets the
// partition free.
func (ch *channel) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, ch.dismiss)
	defer stop()
	if err := ch.conn.Run(context.WithoutCancel(ctx)); err != nil && ctx.Err() == nil {
		ch.u.cfg.Log.WarnContext(ctx, "device channel broke", "uuid", ch.uuid, "error", err)
	}
	u := ch.u
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.channels, ch)
	if p := u.partitions[ch.uuid]; p != nil && p.holder == ch {
		p.holder = nil
	}
	close(ch.gone)
}

// dismiss ends the channel, and the VCM: one that were cut off without a word would
// wait for the unit to come back.
func (ch *channel) dismiss() {
	_ = ch.conn.Tell(hsmapi.MethodDismiss)
	select {
	case <-ch.gone:
	case <-time.After(dismissal):
	}
	_ = ch.conn.Close()
}

func (ch *channel) handle(ctx context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
	refuseFiles(r.Files)
	if wait := ch.pace.wait(time.Now()); wait > 0 {
		pause(ctx, wait)
	}
	switch r.Method {
	case hsmapi.MethodOpen:
		return ch.open(ctx, ch.opened)
	case hsmapi.MethodResume:
		var in hsmapi.Resume
		if err := r.Decode(&in); err != nil {
			return fdrpc.Reply{}, err
		}
		return ch.open(ctx, func() (fdrpc.Reply, error) { return ch.resumed(in.Ticket) })
	case hsmapi.MethodTime:
		if err := ch.u.working(); err != nil {
			return fdrpc.Reply{}, err
		}
		return fdrpc.Reply{Body: ch.u.Time()}, nil
	case hsmapi.MethodCounter:
		return decoded(r, func(in hsmapi.Counter) (hsmapi.Counter, error) { return ch.raise(ctx, in) })
	case hsmapi.MethodCertifyHosts:
		return decoded(r, func(in hsmapi.CertifyHosts) (hsmapi.HostCertificates, error) {
			if err := ch.mustHold(); err != nil {
				return hsmapi.HostCertificates{}, err
			}
			return ch.u.CertifyHosts(ch.uuid, in)
		})
	case hsmapi.MethodSignModule:
		return decoded(r, func(in hsmapi.SignModule) (hsmapi.Signature, error) {
			if err := ch.mustHold(); err != nil {
				return hsmapi.Signature{}, err
			}
			return ch.u.signModule(ch.moduleID, in.Text)
		})
	case hsmapi.MethodLease:
		return decoded(r, ch.lease)
	}
	return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "unknown method %.40q on a device channel", r.Method)
}

// open makes the channel the partition's holder, once and one channel at a time, if
// answer agrees.
func (ch *channel) open(ctx context.Context, answer func() (fdrpc.Reply, error)) (fdrpc.Reply, error) {
	if err := ch.claim(ctx); err != nil {
		return fdrpc.Reply{}, err
	}
	reply, err := answer()
	if err != nil {
		ch.release()
		return fdrpc.Reply{}, err
	}
	return reply, nil
}

func (ch *channel) claim(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, holderGrace)
	defer cancel()
	for {
		before, err := ch.tryClaim()
		if err != nil || before == nil {
			return err
		}
		select {
		case <-before.gone:
		case <-ctx.Done():
			return errkind.Errorf(errkind.Mode, "VCM %s is already open in another process", ch.uuid)
		}
	}
}

// tryClaim makes ch the holder, or returns who is.
func (ch *channel) tryClaim() (before *channel, err error) {
	u := ch.u
	u.mu.Lock()
	defer u.mu.Unlock()
	if ch.holds {
		return nil, errkind.Errorf(errkind.Mode, "this channel has opened VCM %s already", ch.uuid)
	}
	p, err := u.find(ch.uuid)
	if err != nil {
		return nil, err
	}
	if p.holder != nil {
		return p.holder, nil
	}
	p.holder, ch.holds = ch, true
	return nil, nil
}

func (ch *channel) release() {
	u := ch.u
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.partitions[ch.uuid]; p != nil && p.holder == ch {
		p.holder = nil
	}
	ch.holds = false
}

// opened gives the key.
func (ch *channel) opened() (fdrpc.Reply, error) {
	u := ch.u
	u.mu.Lock()
	defer u.mu.Unlock()
	p, err := u.find(ch.uuid)
	if err == nil && ch.resumes {
		err = errkind.Errorf(errkind.Refused, "this channel of VCM %s is for one who has the key", ch.uuid)
	}
	if err != nil {
		return fdrpc.Reply{}, err
	}
	key, err := u.key(p, ch.share, ch.attached)
	if err != nil {
		return fdrpc.Reply{}, err
	}
	defer clear(key)
	f, carrier, err := keyfd.Pack(key)
	if err != nil {
		return fdrpc.Reply{}, err
	}
	out := ch.describe(p)
	if out.Ticket, err = u.ticket(p); err != nil {
		_ = f.Close()
		return fdrpc.Reply{}, err
	}
	u.cfg.Log.Info("partition opened", "uuid", p.UUID, "module", p.ModuleID, "carrier", carrier)
	return fdrpc.Reply{Body: out, Files: []*os.File{f}}, nil
}

// resumed describes the partition to one who shows that he has opened it.
func (ch *channel) resumed(ticket []byte) (fdrpc.Reply, error) {
	u := ch.u
	u.mu.Lock()
	defer u.mu.Unlock()
	p, err := u.find(ch.uuid)
	if err != nil {
		return fdrpc.Reply{}, err
	}
	want, err := u.ticket(p)
	if err != nil {
		return fdrpc.Reply{}, err
	}
	if !ch.resumes || subtle.ConstantTimeCompare(ticket, want) != 1 {
		return fdrpc.Reply{}, errkind.Errorf(errkind.Refused, "VCM %s was not opened by who wants to go on with it", ch.uuid)
	}
	u.cfg.Log.Info("partition resumed", "uuid", p.UUID, "module", p.ModuleID)
	return fdrpc.Reply{Body: ch.describe(p)}, nil
}

// describe is what a holder is told besides the key. The caller holds Unit.mu.
func (ch *channel) describe(p *partition) hsmapi.Opened {
	u := ch.u
	return hsmapi.Opened{
		UUID: p.UUID, ModuleID: p.ModuleID, Identity: u.identity(), Counter: u.counters.value(p.ModuleID),
		Time: u.rtc.both(), Created: p.Created, TestMode: u.cfg.TestMode, Speed: ch.rated,
	}
}

// ticket is given with a partition's key, so that its holder can go on when the unit
// was away: a unit that was killed knows nobody who had opened what. It is another one
// under another tenant's share. The caller holds mu.
func (u *Unit) ticket(p *partition) ([]byte, error) {
	key, err := sealed.Derive(u.root.Bytes(), "tesserae device ticket v1")
	if err != nil {
		return nil, err
	}
	defer clear(key)
	mac := hmac.New(sha256.New, key)
	mac.Write(sealed.Place([]byte(p.UUID), []byte(p.ModuleID), []byte(p.ShareKey)))
	return mac.Sum(nil), nil
}

// mustHold refuses a channel that has not opened its partition.
func (ch *channel) mustHold() error {
	u := ch.u
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.ready(); err != nil {
		return err
	}
	if !ch.holds {
		return errkind.Errorf(errkind.Mode, "VCM %s is not open on this channel", ch.uuid)
	}
	return nil
}

func (ch *channel) raise(ctx context.Context, in hsmapi.Counter) (hsmapi.Counter, error) {
	if err := ch.mustHold(); err != nil {
		return hsmapi.Counter{}, err
	}
	v, err := ch.u.counters.raise(ctx, ch.moduleID, in.Value)
	return hsmapi.Counter{Value: v}, err
}

func (ch *channel) lease(in hsmapi.Lease) (hsmapi.Leased, error) {
	if err := ch.mustHold(); err != nil {
		return hsmapi.Leased{}, err
	}
	if in.Tokens < 1 || in.Tokens > 1<<20 {
		return hsmapi.Leased{}, errkind.Errorf(errkind.Invalid, "a lease is for 1 to %d tokens", 1<<20)
	}
	return ch.u.capacity.lease(ch.speed, in.Tokens, ch.u.cfg.Clock.Now()), nil
}
