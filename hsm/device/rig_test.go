package device_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/keyfd"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

const esn = "0123-4567-89AB"

// rig is a unit that is served over a socket.
type rig struct {
	t      *testing.T
	cfg    device.Config
	clock  *clock.Fake
	socket string
	client *hsmapi.Client
	stop   func()
}

// newRig makes a unit and serves it.
func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	fake := clock.NewFake(time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC))
	r := &rig{t: t, clock: fake, cfg: device.Config{Dir: dir, Clock: fake}, socket: filepath.Join(dir, "s")}
	if _, err := device.Initialise(r.cfg, esn); err != nil {
		t.Fatal(err)
	}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// start serves the unit until stop, which also waits and may be called twice.
func (r *rig) start() {
	r.t.Helper()
	u, err := device.Open(r.t.Context(), r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := fdrpc.Listen(r.socket, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- u.Serve(ctx, l) }()
	if r.client, err = hsmapi.Dial(r.t.Context(), r.socket); err != nil {
		r.t.Fatal(err)
	}
	client := r.client
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		client.Close()
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("serve: %v", err)
		}
		if err := u.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
	}
}

func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

func (r *rig) create(in hsmapi.CreatePartition) hsmapi.Partition {
	r.t.Helper()
	if in.UUID == "" {
		in.UUID = uuid.NewString()
	}
	p, err := r.client.Create(r.t.Context(), in)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// attach returns a VCM's end of a fresh device channel.
func (r *rig) attach(in hsmapi.Attach) (*hsmapi.Channel, error) {
	r.t.Helper()
	here, there, err := fdrpc.Pair()
	if err != nil {
		r.t.Fatal(err)
	}
	defer there.Close()
	f, err := here.File()
	here.Close()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.client.Attach(r.t.Context(), in, there); err != nil {
		f.Close()
		return nil, err
	}
	ch, err := hsmapi.NewChannel(f)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ch.Close() })
	return ch, nil
}

// open attaches and opens a partition.
func (r *rig) open(id string) (*hsmapi.Channel, hsmapi.Opened, []byte) {
	r.t.Helper()
	ch, err := r.attach(hsmapi.Attach{UUID: id})
	if err != nil {
		r.t.Fatal(err)
	}
	o, key, err := ch.Open(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return ch, o, take(key)
}

func take(key *keyfd.Key) []byte {
	defer key.Destroy()
	return append([]byte(nil), key.Bytes()...)
}

func want(t *testing.T, err error, kind errkind.Kind) {
	t.Helper()
	if !errkind.Is(err, kind) {
		t.Errorf("error %v (%v), want kind %v", err, errkind.Of(err), kind)
	}
}

func (r *rig) file(name string) string { return filepath.Join(r.cfg.Dir, name) }

// holds reports whether any file below dir contains secret.
func holds(t *testing.T, dir string, secret []byte) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		p, err := os.ReadFile(path)
		found = found || contains(p, secret)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
