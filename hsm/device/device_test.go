package device_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/device"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

func contains(p, secret []byte) bool { return len(secret) > 0 && bytes.Contains(p, secret) }

func TestIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, err := r.client.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if id.ESN != esn || id.FirmwareID != "STS64V10" || len(id.ModuleID) != 8 || id.Tampered || id.Warrant != "" {
		t.Errorf("identity %+v", id)
	}
	request, err := os.ReadFile(r.file("identity-request"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := warrant.ReadRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	if req.UnitKey != id.UnitKey || req.EncryptionKey != id.EncryptionKey || req.ModuleID != id.ModuleID {
		t.Errorf("request %+v does not say what the identity %+v says", req, id)
	}
	if _, err := device.Initialise(r.cfg, esn); !errkind.Is(err, errkind.Mode) {
		t.Errorf("a second init: %v", err)
	}
}

func TestPartitionLifeCycle(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.create(hsmapi.CreatePartition{})
	if again := r.create(hsmapi.CreatePartition{UUID: p.UUID}); again != p {
		t.Errorf("creating again answered %+v, not %+v", again, p)
	}
	ch, o, key := r.open(p.UUID)
	if o.UUID != p.UUID || o.ModuleID != p.ModuleID || o.Counter != 0 || o.Identity.ESN != esn || o.TestMode {
		t.Errorf("opened %+v", o)
	}
	if len(key) != hsmapi.KeySize || bytes.Equal(key, make([]byte, hsmapi.KeySize)) {
		t.Errorf("key of %d bytes", len(key))
	}
	if holds(t, r.cfg.Dir, key) {
		t.Error("the partition key is on the disk in clear")
	}
	list, err := r.client.Partitions(t.Context())
	if err != nil || len(list) != 1 || !list[0].Open {
		t.Errorf("list %+v, %v", list, err)
	}
	want(t, r.client.Destroy(t.Context(), p.UUID), errkind.Mode)
	want(t, r.client.Factory(t.Context()), errkind.Mode)

	r.restart()
	_, _, same := r.open(p.UUID)
	if !bytes.Equal(same, key) {
		t.Error("another key after a restart")
	}
	ch.Close()
}

func TestDestroyedKeyIsGoneAndItsIDToo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.create(hsmapi.CreatePartition{})
	ch, _, key := r.open(p.UUID)
	ch.Close()
	waitClosed(t, r, p.UUID)
	for range 2 { // resumable
		if err := r.client.Destroy(t.Context(), p.UUID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.attach(hsmapi.Attach{UUID: p.UUID}); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("attach to a destroyed partition: %v", err)
	}
	next := r.create(hsmapi.CreatePartition{UUID: p.UUID})
	if next.ModuleID <= p.ModuleID {
		t.Errorf("module id %s after %s", next.ModuleID, p.ModuleID)
	}
	_, o, other := r.open(p.UUID)
	if bytes.Equal(other, key) || o.Counter != 0 {
		t.Error("a new partition of an old UUID got the old key or counter")
	}
}

// waitClosed waits until the unit has seen a channel go.
func waitClosed(t *testing.T, r *rig, id string) {
	t.Helper()
	for range 200 {
		list, err := r.client.Partitions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		open := false
		for _, p := range list {
			open = open || p.UUID == id && p.Open
		}
		if !open {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the partition stayed open after its channel closed")
}

func TestOneHolderAtATime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.create(hsmapi.CreatePartition{})
	first, _, _ := r.open(p.UUID)
	second, err := r.attach(hsmapi.Attach{UUID: p.UUID})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = second.Open(t.Context())
	want(t, err, errkind.Mode)
	_, err = second.Raise(t.Context(), 5)
	want(t, err, errkind.Mode)
	_, _, err = first.Open(t.Context())
	want(t, err, errkind.Mode)

	// A restarted VCM meets its own past for an instant.
	go first.Close()
	if _, key, err := second.Open(t.Context()); err != nil {
		t.Errorf("the partition is not free again: %v", err)
	} else {
		key.Destroy()
	}
}

func TestFailedOpenLeavesThePartitionFree(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.create(hsmapi.CreatePartition{})
	ch, err := r.attach(hsmapi.Attach{UUID: p.UUID})
	if err != nil {
		t.Fatal(err)
	}
	ch.Close()
	r.open(p.UUID)
}

func TestCounter(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.create(hsmapi.CreatePartition{}), r.create(hsmapi.CreatePartition{})
	ch, _, _ := r.open(a.UUID)
	for _, step := range []struct{ raise, want uint64 }{{7, 7}, {7, 7}, {3, 7}, {0, 7}, {1 << 60, 1 << 60}} {
		if got, err := ch.Raise(t.Context(), step.raise); err != nil || got != step.want {
			t.Errorf("raise to %d: %d, %v; want %d", step.raise, got, err, step.want)
		}
	}
	r.restart()
	_, o, _ := r.open(a.UUID)
	_, other, _ := r.open(b.UUID)
	if o.Counter != 1<<60 || other.Counter != 0 {
		t.Errorf("after a restart: %d and %d", o.Counter, other.Counter)
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, err := r.client.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	armored, err := r.client.Sign(t.Context(), hsmapi.NamespaceVCMFile, []byte("hello\n"))
	if err != nil {
		t.Fatal(err)
	}
	verify(t, armored, "hello\n", id.UnitKey, hsmapi.NamespaceVCMFile)
	for _, ns := range []string{"", "file", hsmapi.NamespaceModule, warrant.RequestNamespace} {
		_, err := r.client.Sign(t.Context(), ns, []byte("x"))
		want(t, err, errkind.Refused)
	}
}

func TestSignModule(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, err := r.client.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, other := r.create(hsmapi.CreatePartition{}), r.create(hsmapi.CreatePartition{})
	ch, _, _ := r.open(p.UUID)
	text := hsmapi.ModulePrefix(p.ModuleID) + "SPN1;CRC0000;"
	armored, err := ch.SignModule(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, armored, text, id.UnitKey, hsmapi.NamespaceModule)
	for _, bad := range []string{"", "hello", hsmapi.ModulePrefix(other.ModuleID), "SM.PUBKEY.1;SMI" + p.ModuleID, " " + text} {
		_, err := ch.SignModule(t.Context(), bad)
		want(t, err, errkind.Refused)
	}
}

func verify(t *testing.T, armored, message, unitKey, namespace string) {
	t.Helper()
	sig, err := sshsig.Unarmor([]byte(armored))
	if err != nil {
		t.Fatal(err)
	}
	key, err := warrant.ParseKey(unitKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := sshsig.Verify(strings.NewReader(message), sig, key, sshsig.HashSHA512, namespace); err != nil {
		t.Error(err)
	}
}

func TestCertifyHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, err := r.client.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unit, err := warrant.ParseKey(id.UnitKey)
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	p := r.create(hsmapi.CreatePartition{})
	ch, _, _ := r.open(p.UUID)
	platform, err := r.client.CertifyHost(t.Context(), "setup", host)
	if err != nil {
		t.Fatal(err)
	}
	vcm, err := ch.CertifyHost(t.Context(), "sshadmin", host)
	if err != nil {
		t.Fatal(err)
	}
	for want, cert := range map[string]*ssh.Certificate{
		hsmapi.Principal(esn, "", "setup"):        platform,
		hsmapi.Principal(esn, p.UUID, "sshadmin"): vcm,
	} {
		checker := ssh.CertChecker{IsHostAuthority: func(k ssh.PublicKey, _ string) bool { return bytes.Equal(k.Marshal(), unit.Marshal()) }}
		if err := checker.CheckCert(want, cert); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if !checker.IsHostAuthority(cert.SignatureKey, "") || cert.CertType != ssh.HostCert || len(cert.ValidPrincipals) != 1 {
			t.Errorf("%s: certificate %+v", want, cert)
		}
	}
	for _, service := range []string{"", "a/b", p.UUID + "/sshadmin", "../x", "A", "1a", "-a", strings.Repeat("a", 33)} {
		_, err := r.client.CertifyHost(t.Context(), service, host)
		want(t, err, errkind.Invalid)
	}
	several := []hsmapi.HostKey{{Service: "sshadmin", Key: host}, {Service: "monitor-2", Key: host}}
	certs, err := ch.CertifyHosts(t.Context(), several...)
	if err != nil {
		t.Fatal(err)
	}
	for i, cert := range certs {
		if want := hsmapi.Principal(esn, p.UUID, several[i].Service); cert.KeyId != want {
			t.Errorf("certificate %d is %s, want %s", i, cert.KeyId, want)
		}
	}
	for _, n := range []int{0, hsmapi.MaxHosts + 1} {
		_, err := ch.CertifyHosts(t.Context(), slices.Repeat(several[:1], n)...)
		want(t, err, errkind.Invalid)
	}
}

func TestPartitionsArePaged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	n := hsmapi.PageSize + 3
	ids := map[string]bool{}
	for i := range n {
		p := r.create(hsmapi.CreatePartition{UUID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i)})
		ids[p.ModuleID] = true
	}
	list, err := r.client.Partitions(t.Context())
	if err != nil || len(list) != n || len(ids) != n {
		t.Errorf("%d listed, %d ids, want %d; %v", len(list), len(ids), n, err)
	}
}

func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, id := range []string{"", "x", "../../etc/passwd", strings.ToUpper("00000000-0000-4000-8000-00000000000a"), "{00000000-0000-4000-8000-000000000000}"} {
		_, err := r.client.Create(t.Context(), hsmapi.CreatePartition{UUID: id})
		want(t, err, errkind.Invalid)
		want(t, r.client.Destroy(t.Context(), id), errkind.Invalid)
	}
	_, err := r.client.Create(t.Context(), hsmapi.CreatePartition{UUID: "00000000-0000-4000-8000-000000000000", ShareKey: "nonsense"})
	want(t, err, errkind.Invalid)
	_, err = r.attach(hsmapi.Attach{UUID: "00000000-0000-4000-8000-000000000000"})
	want(t, err, errkind.NotFound)
	list, err := r.client.Partitions(t.Context())
	if err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestOnlyOneProcessUsesTheFolder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := device.Open(t.Context(), r.cfg)
	want(t, err, errkind.Mode)
	empty := r.cfg
	empty.Dir = t.TempDir()
	_, err = device.Open(t.Context(), empty)
	want(t, err, errkind.NotFound)
}
