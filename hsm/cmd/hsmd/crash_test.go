package main

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// kills is how often the unit is killed; each life is a few milliseconds of load.
const kills = 25

// witness is what clients were told; a crash may not contradict it.
type witness struct {
	mu        sync.Mutex
	counters  map[string]uint64 // highest value answered, by module id
	modules   map[string]string // every module id ever answered -> UUID
	alive     map[string]hsmapi.Partition
	destroyed map[string]bool // destroy was answered
	doomed    map[string]bool // destroy was asked for
	keys      map[string]string
}

// TestKillAtAnyInstant kills hsmd while clients create and destroy partitions
// and raise counters, and checks after each restart that nothing that was
// answered is undone, counters never go back and module ids never repeat.
func TestKillAtAnyInstant(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := device.Initialise(device.Config{Dir: dir}, ""); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	w := &witness{
		counters: map[string]uint64{}, modules: map[string]string{}, alive: map[string]hsmapi.Partition{},
		destroyed: map[string]bool{}, doomed: map[string]bool{}, keys: map[string]string{},
	}
	for range kills {
		w.oneLife(t, dir, time.Duration(rnd.IntN(60_000))*time.Microsecond)
		if t.Failed() {
			return
		}
	}
	if len(w.modules) < kills || len(w.destroyed) == 0 || len(w.counters) == 0 {
		t.Errorf("the load did too little: %d partitions, %d destroyed, %d counters", len(w.modules), len(w.destroyed), len(w.counters))
	}
	t.Logf("%d kills, %d partitions, %d destroyed", kills, len(w.modules), len(w.destroyed))
}

// oneLife starts the unit, checks it, loads it and kills it after a while.
func (w *witness) oneLife(t *testing.T, dir string, life time.Duration) {
	socket := filepath.Join(dir, "s")
	_ = os.Remove(socket) // a killed unit leaves it
	cmd := exec.Command(os.Args[0], "run", "--state", dir, "--socket", socket, "--log-level", "error")
	cmd.Env = []string{asHSMD + "=1"}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	client := dial(t, socket)
	defer client.Close()
	w.check(t, client)

	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() { w.createAndDestroy(ctx, t, client) })
	}
	load.Go(func() { w.raise(ctx, t, client) })
	time.Sleep(life)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cancel()
	load.Wait()
}

func dial(t *testing.T, socket string) *hsmapi.Client {
	t.Helper()
	var err error
	for range 1000 {
		var c *hsmapi.Client
		if c, err = hsmapi.Dial(t.Context(), socket); err == nil {
			return c
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal(err)
	return nil
}

// check compares the unit with what was answered before the kill.
func (w *witness) check(t *testing.T, c *hsmapi.Client) {
	list, err := c.Partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]hsmapi.Partition{}
	for _, p := range list {
		found[p.UUID] = p
		if other, ok := w.modules[p.ModuleID]; ok && other != p.UUID {
			t.Errorf("module id %s of %s was %s's", p.ModuleID, p.UUID, other)
		}
		w.modules[p.ModuleID] = p.UUID
		if w.destroyed[p.UUID] {
			t.Errorf("%s is back after it was destroyed", p.UUID)
		}
	}
	for id, p := range w.alive {
		if got, ok := found[id]; !ok && !w.doomed[id] || ok && got.ModuleID != p.ModuleID {
			t.Errorf("%+v became %+v", p, got)
		} else if !ok {
			delete(w.alive, id)
		} else {
			w.checkOpen(t, c, got)
		}
	}
}

func (w *witness) checkOpen(t *testing.T, c *hsmapi.Client, p hsmapi.Partition) {
	ch, o, key, err := open(t.Context(), c, p.UUID)
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	if o.Counter < w.counters[p.ModuleID] {
		t.Errorf("counter of %s went back from %d to %d", p.ModuleID, w.counters[p.ModuleID], o.Counter)
	}
	if before, ok := w.keys[p.UUID]; ok && before != key {
		t.Errorf("the key of %s changed", p.UUID)
	}
	w.keys[p.UUID] = key
}

func open(ctx context.Context, c *hsmapi.Client, id string) (*hsmapi.Channel, hsmapi.Opened, string, error) {
	here, there, err := fdrpc.Pair()
	if err != nil {
		return nil, hsmapi.Opened{}, "", err
	}
	f, err := here.File()
	_ = here.Close()
	if err != nil {
		return nil, hsmapi.Opened{}, "", err
	}
	ch, err := hsmapi.NewChannel(f)
	if err != nil {
		return nil, hsmapi.Opened{}, "", err
	}
	err = c.Attach(ctx, hsmapi.Attach{UUID: id}, there)
	_ = there.Close()
	if err == nil {
		o, key, openErr := ch.Open(ctx)
		if err = openErr; err == nil {
			defer key.Destroy()
			return ch, o, string(key.Bytes()), nil
		}
	}
	_ = ch.Close()
	return nil, hsmapi.Opened{}, "", err
}

func (w *witness) createAndDestroy(ctx context.Context, t *testing.T, c *hsmapi.Client) {
	for i := 0; ctx.Err() == nil; i++ {
		id := uuid.NewString()
		p, err := c.Create(ctx, hsmapi.CreatePartition{UUID: id})
		if err != nil {
			return
		}
		w.mu.Lock()
		if other, ok := w.modules[p.ModuleID]; ok {
			t.Errorf("module id %s given to %s and %s", p.ModuleID, other, id)
		}
		w.modules[p.ModuleID] = id
		w.alive[id] = p
		w.mu.Unlock()
		if i%4 != 0 {
			w.mu.Lock()
			w.doomed[id] = true
			w.mu.Unlock()
			if c.Destroy(ctx, id) != nil {
				return
			}
			w.mu.Lock()
			w.destroyed[id] = true
			delete(w.alive, id)
			w.mu.Unlock()
		}
	}
}

// raise opens one partition and raises its counter as fast as it can.
func (w *witness) raise(ctx context.Context, t *testing.T, c *hsmapi.Client) {
	id := uuid.NewString()
	p, err := c.Create(ctx, hsmapi.CreatePartition{UUID: id})
	if err != nil {
		return
	}
	w.mu.Lock()
	w.modules[p.ModuleID], w.alive[id] = id, p
	w.mu.Unlock()
	ch, _, _, err := open(ctx, c, id)
	if err != nil {
		return
	}
	defer ch.Close()
	for v := uint64(1); ; v++ {
		got, err := ch.Raise(ctx, v)
		if err != nil {
			return
		}
		if got != v {
			t.Errorf("raised to %d, answered %d", v, got)
			return
		}
		w.mu.Lock()
		w.counters[p.ModuleID] = v
		w.mu.Unlock()
	}
}
