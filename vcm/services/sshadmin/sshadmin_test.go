package sshadmin

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"log/slog"
	"os"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	api "github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

type counter struct{}

func (counter) Raise(_ context.Context, v uint64) (uint64, error) { return v, nil }

type rig struct {
	t       *testing.T
	store   *store.Store
	entries []auditlog.Entry
	audit   error
	initial string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), store.Config{
		Dir: dir, Key: make([]byte, 32), Counter: counter{}, Quota: 4 << 20, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); dir.Close() })
	return &rig{t: t, store: s, initial: line(t, newKey(t))}
}

func (r *rig) open() *Keys {
	r.t.Helper()
	k, err := Open(r.t.Context(), Config{
		Store: r.store, Clock: clock.NewFake(time.Unix(1_800_000_000, 0)), InitialKey: r.initial,
		Audit: func(_ *store.Tx, e auditlog.Entry) error {
			if r.audit == nil {
				r.entries = append(r.entries, e)
			}
			return r.audit
		},
		Services: []Service{{Name: "sshadmin", Address: "127.77.0.1:2201"}, {Name: "monitor", Address: "127.77.0.1:2202"}, {Name: "conductor"}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

func newKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func line(t *testing.T, k ssh.PublicKey) string {
	t.Helper()
	return marshal(k)
}

func holds(k *Keys, service, want string) bool {
	key, ok := k.Authorised(service)()
	return ok == (want != "") && marshal(key) == want
}

func TestKeysAreInstalledTogetherAndStay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.open()
	if !holds(k, "sshadmin", r.initial) || !holds(k, "monitor", "") || !holds(k, "unknown", "") {
		t.Fatal("the first keys are not those of the request")
	}
	admin, mon := line(t, newKey(t)), line(t, newKey(t))
	list, err := k.Handler("me").InstallKeys(t.Context(), []*api.ClientKey{{ServiceName: "sshadmin", ClientKey: admin}, {ServiceName: "monitor", ClientKey: mon + " comment"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 3 || list[0].ClientKey != admin || list[1].ClientKey != mon || list[1].Installed != 1_800_000_000 || list[2].ClientKey != "" || list[2].Installed != 0 {
		t.Errorf("list %+v", list)
	}
	if len(r.entries) != 2 || r.entries[0].Subject != "monitor" || r.entries[0].Actor != "me" || r.entries[1].Detail["before"] == "" {
		t.Errorf("audit %+v", r.entries)
	}
	again := r.open()
	if !holds(again, "sshadmin", admin) || !holds(again, "monitor", mon) {
		t.Error("the keys did not survive")
	}
	if _, err := again.Handler("me").InstallKeys(t.Context(), []*api.ClientKey{{ServiceName: "monitor"}}); err != nil || !holds(again, "monitor", "") {
		t.Errorf("taking a key away: %v", err)
	}
	if third := r.open(); !holds(third, "monitor", "") {
		t.Error("the key came back")
	}
}

func TestWrongInstallationsChangeNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := r.open()
	good := line(t, newKey(t))
	if _, err := k.Handler("me").InstallKeys(t.Context(), []*api.ClientKey{{ServiceName: "monitor", ClientKey: good}}); err != nil {
		t.Fatal(err)
	}
	other := line(t, newKey(t))
	for name, c := range map[string]struct {
		keys []*api.ClientKey
		kind errkind.Kind
	}{
		"nothing":               {nil, errkind.Invalid},
		"unknown service":       {[]*api.ClientKey{{ServiceName: "monitor", ClientKey: other}, {ServiceName: "setup", ClientKey: other}}, errkind.Invalid},
		"twice":                 {[]*api.ClientKey{{ServiceName: "monitor", ClientKey: other}, {ServiceName: "monitor", ClientKey: other}}, errkind.Invalid},
		"not a key":             {[]*api.ClientKey{{ServiceName: "monitor", ClientKey: "ssh-ed25519 AAAA"}}, errkind.Invalid},
		"options":               {[]*api.ClientKey{{ServiceName: "monitor", ClientKey: "no-pty " + other}}, errkind.Invalid},
		"two lines":             {[]*api.ClientKey{{ServiceName: "monitor", ClientKey: other + "\n" + good}}, errkind.Invalid},
		"weak key":              {[]*api.ClientKey{{ServiceName: "monitor", ClientKey: rsaKey(t)}}, errkind.Invalid},
		"sshadmin without":      {[]*api.ClientKey{{ServiceName: "sshadmin"}}, errkind.Refused},
		"one key, two services": {[]*api.ClientKey{{ServiceName: "conductor", ClientKey: good}}, errkind.Refused},
		"sshadmin's own":        {[]*api.ClientKey{{ServiceName: "conductor", ClientKey: r.initial}}, errkind.Refused},
	} {
		if _, err := k.Handler("me").InstallKeys(t.Context(), c.keys); !errkind.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.audit = errors.New("the log is full")
	if _, err := k.Handler("me").InstallKeys(t.Context(), []*api.ClientKey{{ServiceName: "monitor", ClientKey: other}}); !errors.Is(err, r.audit) {
		t.Errorf("without the audit log: %v", err)
	}
	for _, k := range []*Keys{k, r.open()} {
		if !holds(k, "monitor", good) || !holds(k, "sshadmin", r.initial) || !holds(k, "conductor", "") {
			t.Error("a refused installation changed something")
		}
	}
}

func TestAnECDSAKeyIsAsGood(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	k := newRig(t).open()
	if _, err := k.Handler("me").InstallKeys(t.Context(), []*api.ClientKey{{ServiceName: "monitor", ClientKey: marshal(key)}}); err != nil || !holds(k, "monitor", marshal(key)) {
		t.Error(err)
	}
}

func rsaKey(t *testing.T) string {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k, err := ssh.NewPublicKey(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return marshal(k)
}
