package device_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// resuming attaches a channel to be resumed.
func (r *rig) resuming(id string) *hsmapi.Channel {
	r.t.Helper()
	ch, err := r.attach(hsmapi.Attach{UUID: id, Resume: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return ch
}

// A VCM goes on with its partition on a unit that knows nothing of it any more, also
// one whose key the unit could not give without the tenant.
func TestResume(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	who := newTenant(t)
	p, free := r.create(hsmapi.CreatePartition{ShareKey: who.key}), r.create(hsmapi.CreatePartition{})
	ch, err := r.attach(hsmapi.Attach{UUID: p.UUID, Share: r.seal(who, esn, p.UUID, 0)})
	if err != nil {
		t.Fatal(err)
	}
	o, key, err := ch.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key.Destroy()
	_, other, _ := r.open(free.UUID)
	if _, err := ch.Raise(t.Context(), 9); err != nil {
		t.Fatal(err)
	}
	_, err = r.resuming(p.UUID).Resume(t.Context(), o.Ticket)
	want(t, err, errkind.Mode) // the VCM has its channel

	r.clock.Advance(48 * time.Hour) // the tenant's request has long expired
	r.restart()
	for what, ticket := range map[string][]byte{
		"none": nil, "another VCM's": other.Ticket, "cut": o.Ticket[:31], "changed": append(slices.Clone(o.Ticket[:31]), o.Ticket[31]^1),
	} {
		if _, err := r.resuming(p.UUID).Resume(t.Context(), ticket); !errkind.Is(err, errkind.Refused) {
			t.Errorf("resumed with the ticket %s: %v", what, err)
		}
	}
	ch = r.resuming(p.UUID)
	_, err = ch.Raise(t.Context(), 10)
	want(t, err, errkind.Mode) // not before it has resumed
	_, _, err = ch.Open(t.Context())
	want(t, err, errkind.Refused) // such a channel gives no key
	got, err := ch.Resume(t.Context(), o.Ticket)
	if err != nil || got.UUID != p.UUID || got.ModuleID != o.ModuleID || got.Counter != 9 || got.Ticket != nil {
		t.Fatalf("resumed %+v, %v", got, err)
	}
	if at, err := ch.Raise(t.Context(), 10); err != nil || at != 10 {
		t.Errorf("raised to %d, %v", at, err)
	}
	_, err = ch.Resume(t.Context(), o.Ticket)
	want(t, err, errkind.Mode) // once a channel
	_, err = r.client.Protect(t.Context(), hsmapi.Protect{UUID: p.UUID, Share: r.seal(who, esn, p.UUID, 0)})
	want(t, err, errkind.Mode) // it is running

	// A channel that was attached to be opened is not for that.
	plain, err := r.attach(hsmapi.Attach{UUID: free.UUID})
	if err != nil {
		t.Fatal(err)
	}
	_, err = plain.Resume(t.Context(), other.Ticket)
	want(t, err, errkind.Refused)

	// Who had opened the partition before it was protected otherwise, or destroyed, has
	// no part in it any more.
	_ = ch.Close()
	r.restart()
	if _, err := r.client.Protect(t.Context(), hsmapi.Protect{UUID: p.UUID, Share: r.seal(who, esn, p.UUID, 0)}); err != nil {
		t.Fatal(err)
	}
	_, err = r.resuming(p.UUID).Resume(t.Context(), o.Ticket)
	want(t, err, errkind.Refused)
	if err := r.client.Destroy(t.Context(), free.UUID); err != nil {
		t.Fatal(err)
	}
	_, err = r.attach(hsmapi.Attach{UUID: free.UUID, Resume: true})
	want(t, err, errkind.NotFound)
	r.create(hsmapi.CreatePartition{UUID: free.UUID})
	_, err = r.resuming(free.UUID).Resume(t.Context(), other.Ticket)
	want(t, err, errkind.Refused)
}

// A unit that is switched off, or tampered with, tells its VCMs, so that none waits for it.
func TestDismissal(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(*rig) error{
		"switched off": func(r *rig) error { r.stop(); return nil },
		"tampered":     func(r *rig) error { return device.Tamper(r.cfg) },
	} {
		r := newRig(t)
		ch, _, _ := r.open(r.create(hsmapi.CreatePartition{}).UUID)
		if err := end(r); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ch.Done():
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: the channel did not end", what)
		}
		if !ch.Dismissed() {
			t.Errorf("%s: the channel ended without a word", what)
		}
	}
}
