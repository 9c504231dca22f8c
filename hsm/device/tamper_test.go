package device_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

func TestTamperOfARunningUnit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.create(hsmapi.CreatePartition{})
	ch, _, _ := r.open(p.UUID)
	if err := device.Tamper(r.cfg); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ch.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("a VCM kept its device channel")
	}
	tampered(t, r)
	r.restart()
	tampered(t, r)
	if id, err := r.client.Identity(t.Context()); err != nil || !id.Tampered || id.ESN != esn {
		t.Errorf("identity %+v, %v", id, err)
	}
}

// tampered checks that every method answers that the unit is tampered.
func tampered(t *testing.T, r *rig) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	c, ctx := r.client, t.Context()
	const id = "00000000-0000-4000-8000-000000000000"
	for method, call := range map[string]func() error{
		hsmapi.MethodCreate:       func() error { _, err := c.Create(ctx, hsmapi.CreatePartition{UUID: id}); return err },
		hsmapi.MethodAttach:       func() error { _, err := r.attach(hsmapi.Attach{UUID: id}); return err },
		hsmapi.MethodProtect:      func() error { _, err := c.Protect(ctx, hsmapi.Protect{UUID: id}); return err },
		hsmapi.MethodDestroy:      func() error { return c.Destroy(ctx, id) },
		hsmapi.MethodPartitions:   func() error { _, err := c.Partitions(ctx); return err },
		hsmapi.MethodSign:         func() error { _, err := c.Sign(ctx, hsmapi.NamespaceVCMFile, nil); return err },
		hsmapi.MethodCertifyHosts: func() error { _, err := c.CertifyHost(ctx, "setup", host); return err },
		hsmapi.MethodTime:         func() error { _, err := c.Time(ctx); return err },
		hsmapi.MethodSetTime:      func() error { _, err := c.SetTime(ctx, hsmapi.SetTime{}); return err },
		hsmapi.MethodFactory:      func() error { return c.Factory(ctx) },
	} {
		if err := call(); !errkind.Is(err, errkind.Mode) || !strings.Contains(err.Error(), "tampered") {
			t.Errorf("%s on a tampered unit: %v", method, err)
		}
	}
}

func TestGuardIsWhatOpensTheUnit(t *testing.T) {
	t.Parallel()
	for what, damage := range map[string]func(path string) error{
		"erased":  func(path string) error { return os.WriteFile(path, make([]byte, 32), 0o600) },
		"lost":    os.Remove,
		"other":   func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x", 32)), 0o600) },
		"cut off": func(path string) error { return os.Truncate(path, 7) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p := r.create(hsmapi.CreatePartition{})
			r.stop()
			if fi, err := os.Stat(r.file("guard")); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("guard %v, %v", fi, err)
			}
			if err := damage(r.file("guard")); err != nil {
				t.Fatal(err)
			}
			r.start()
			_, err := r.attach(hsmapi.Attach{UUID: p.UUID})
			want(t, err, errkind.Mode)
			tampered(t, r)
		})
	}
}

func TestEditedKeysAreNoticed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stop()
	text, err := os.ReadFile(r.file("identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), esn, "FFFF-FFFF-FFFF", 1)
	if err := os.WriteFile(r.file("identity.json"), []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = device.Open(t.Context(), r.cfg)
	want(t, err, errkind.Integrity)
}

func TestFactory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	maker := newMaker(t)
	r.install(maker.warrant(t, r, nil))
	a := r.create(hsmapi.CreatePartition{})
	r.create(hsmapi.CreatePartition{})
	if err := r.client.Factory(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := r.client.Partitions(t.Context())
	if err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
	if id, err := r.client.Identity(t.Context()); err != nil || id.Warrant == "" || id.ESN != esn || id.MakerRoot == "" {
		t.Errorf("identity %+v, %v", id, err)
	}
	if p := r.create(hsmapi.CreatePartition{UUID: a.UUID}); p.ModuleID <= a.ModuleID {
		t.Errorf("module id %s used again", p.ModuleID)
	}
}

func TestInterruptedStepsAreFinished(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.create(hsmapi.CreatePartition{}), r.create(hsmapi.CreatePartition{})
	r.stop()
	// A destruction that stopped after the overwrite, and an atomic write that
	// stopped before the rename.
	path := r.file("partitions/" + a.UUID)
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, fi.Size()), 0o600); err != nil {
		t.Fatal(err)
	}
	left := r.file("partitions/." + b.UUID + ".123")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	list, err := r.client.Partitions(t.Context())
	if err != nil || len(list) != 1 || list[0].UUID != b.UUID {
		t.Errorf("list %+v, %v", list, err)
	}
	for _, gone := range []string{path, left} {
		if _, err := os.Stat(gone); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	// A return to factory state that stopped after its marker.
	r.stop()
	if err := atomicfile.Write(r.file("factory-pending"), []byte("factory\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	if list, err := r.client.Partitions(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("list %+v, %v", list, err)
	}
	r.restart()
	r.create(hsmapi.CreatePartition{})
	r.restart()
	if list, err := r.client.Partitions(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("the marker stayed: %+v, %v", list, err)
	}
}

// maker signs warrants.
type maker struct{ root ssh.Signer }

func newMaker(t *testing.T) maker {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return maker{s}
}

func (m maker) warrant(t *testing.T, r *rig, change func(*warrant.Warrant)) []byte {
	t.Helper()
	file, err := os.ReadFile(r.file("identity-request"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := warrant.ReadRequest(file)
	if err != nil {
		t.Fatal(err)
	}
	w := warrant.Warrant{Unit: req.Unit, Features: licensing.STSVending | licensing.HSMSpeed2, TransactionKey: p384(t), Issued: r.clock.Now()}
	if change != nil {
		change(&w)
	}
	out, err := warrant.Sign(w, m.root)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// install stops the unit, installs the warrant and starts it again.
func (r *rig) install(file []byte) {
	r.t.Helper()
	if err := r.tryInstall(file, nil); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryInstall(file []byte, root ssh.PublicKey) error {
	r.t.Helper()
	r.stop()
	defer r.start()
	u, err := device.Open(r.t.Context(), r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	defer u.Close()
	_, err = u.InstallWarrant(file, root)
	return err
}
