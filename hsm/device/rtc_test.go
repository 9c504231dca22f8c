package device_test

import (
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func (r *rig) now() time.Time {
	r.t.Helper()
	now, err := r.client.Time(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return now.Module
}

func TestClockIsSetAndKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	to := r.clock.Now().Add(-40 * 24 * time.Hour) // any date while nothing depends on it
	got, err := r.client.SetTime(t.Context(), hsmapi.SetTime{Time: to})
	if err != nil || !got.Module.Equal(to) || !got.Host.Equal(r.clock.Now()) || got.Offset() != -40*24*time.Hour {
		t.Errorf("set: %+v, %v", got, err)
	}
	r.clock.Advance(time.Hour)
	r.restart()
	if now := r.now(); !now.Equal(to.Add(time.Hour)) {
		t.Errorf("after a restart %s", now)
	}
	for _, bad := range []time.Time{{}, time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)} {
		_, err := r.client.SetTime(t.Context(), hsmapi.SetTime{Time: bad})
		want(t, err, errkind.Invalid)
	}
}

func TestClockIsSetOnlyALittleOnceThereAreVCMs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.create(hsmapi.CreatePartition{})
	_, err := r.client.SetTime(t.Context(), hsmapi.SetTime{Time: r.now().Add(25 * time.Hour)})
	want(t, err, errkind.Refused)
	if _, err := r.client.SetTime(t.Context(), hsmapi.SetTime{Time: r.now().Add(-23 * time.Hour)}); err != nil {
		t.Error(err)
	}
	for range 2 { // not in small steps either, nor with a restart between them
		_, err = r.client.SetTime(t.Context(), hsmapi.SetTime{Time: r.now().Add(-2 * time.Hour)})
		want(t, err, errkind.Refused)
		r.restart()
	}
	r.open(p.UUID)
	_, err = r.client.SetTime(t.Context(), hsmapi.SetTime{Time: r.now().Add(time.Second)})
	want(t, err, errkind.Mode)
}

func TestClockAdjustsGradually(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{10 * time.Second, -10 * time.Second} {
		r := newRig(t)
		p := r.create(hsmapi.CreatePartition{})
		r.open(p.UUID) // adjusting needs no stop
		start := r.now()
		if _, err := r.client.SetTime(t.Context(), hsmapi.SetTime{Time: start.Add(by), Adjust: true}); err != nil {
			t.Fatal(err)
		}
		if now := r.now(); !now.Equal(start) {
			t.Errorf("by %s: the clock jumped by %s", by, now.Sub(start))
		}
		r.clock.Advance(1000 * time.Second)
		if got := r.now().Sub(start) - 1000*time.Second; got != by/2 {
			t.Errorf("by %s: corrected by %s after 1000 s", by, got)
		}
		r.restart() // also in the middle
		r.clock.Advance(9000 * time.Second)
		if got := r.now().Sub(start) - 10000*time.Second; got != by {
			t.Errorf("by %s: corrected by %s at the end", by, got)
		}
		_, err := r.client.SetTime(t.Context(), hsmapi.SetTime{Time: r.now().Add(6 * time.Minute), Adjust: true})
		want(t, err, errkind.Refused)
	}
}

func TestClockDoesNotFollowTheHostBackwards(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.now()
	r.clock.Advance(-time.Hour)
	if now := r.now(); now.Before(before) {
		t.Errorf("the clock went back to %s", now)
	}
	r.restart()
	if now := r.now(); now.Before(before) {
		t.Errorf("the clock went back to %s over a restart", now)
	}
	r.clock.Advance(2 * time.Hour)
	if now := r.now(); !now.Equal(before.Add(time.Hour)) {
		t.Errorf("the clock shows %s after the host's caught up", now)
	}
}
