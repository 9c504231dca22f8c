package enrol_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

func TestBackups(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	key := h.key(t, "sshadmin")
	home, dir := h.open(t), t.TempDir()
	local, portable := filepath.Join(dir, "local"), filepath.Join(dir, "portable")
	if err := home.Backup(enrol.Tenant, "sshadmin", local); err != nil {
		t.Fatal(err)
	}
	if err := home.BackupWithPassphrase(enrol.Tenant, "sshadmin", portable, "a passphrase"); err != nil {
		t.Fatal(err)
	}
	ask := func() (string, error) { return "a passphrase", nil }
	for _, file := range []string{local, portable} {
		private, err := home.ReadBackup(file, ask)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if public, err := ssh.NewPublicKey(private.Public()); err != nil || !same(public, key) {
			t.Errorf("%s holds another key (%v)", file, err)
		}
	}
	elsewhere := newHost(t)
	elsewhere.machine["product_uuid"] = "another machine"
	if _, err := elsewhere.open(t).ReadBackup(local, ask); err == nil {
		t.Error("a local backup opened on another machine")
	}
	private, err := elsewhere.open(t).ReadBackup(portable, ask)
	if err != nil {
		t.Fatalf("a portable backup: %v", err)
	}
	if err := elsewhere.open(t).SetNext(enrol.Tenant, "sshadmin", private); err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.open(t).UseNext(enrol.Tenant, "sshadmin"); err != nil {
		t.Fatal(err)
	}
	if restored := elsewhere.key(t, "sshadmin"); !same(restored, key) {
		t.Error("another key was restored")
	}
	if _, err := home.ReadBackup(portable, func() (string, error) { return "wrong", nil }); !errkind.Is(err, errkind.Refused) {
		t.Errorf("wrong passphrase: %v", err)
	}
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-y", "-P", "a passphrase", "-f", portable).CombinedOutput()
	if err != nil || !bytes.HasPrefix(out, bytes.TrimSpace(ssh.MarshalAuthorizedKey(key))) {
		t.Errorf("ssh-keygen (Debian package openssh-client): %v\n%s", err, out)
	}
	if err := h.open(t).Backup(enrol.Tenant, "monitor", local); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("backup of a key that is not there: %v", err)
	}
}

func TestMakerRootIsPinnedOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	home, dir := h.open(t), t.TempDir()
	write := func(name string, key ssh.PublicKey) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, ssh.MarshalAuthorizedKey(key), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := home.MakerRoot(); !errkind.Is(err, errkind.Refused) {
		t.Errorf("before: %v", err)
	}
	root := sshrpctest.Key(t).PublicKey()
	for i, first := range []bool{true, false} {
		got, pinned, err := home.PinMakerRoot(write("root", root))
		if err != nil || pinned != first || !same(got, root) {
			t.Errorf("time %d: %v, %v", i, pinned, err)
		}
	}
	if _, _, err := home.PinMakerRoot(write("rogue", sshrpctest.Key(t).PublicKey())); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("another maker: %v", err)
	}
	if got, err := h.open(t).MakerRoot(); err != nil || !same(got, root) {
		t.Errorf("after: %v", err)
	}
	if _, _, err := home.PinMakerRoot(filepath.Join(dir, "nothing")); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("no file: %v", err)
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	const request, later, vcm = "5f0c8a10-3c5e-4d5c-9a35-aa3d2c6f1a7e", "6f0c8a10-3c5e-4d5c-9a35-aa3d2c6f1a7e", "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"
	h := newHost(t)
	secret, err := h.open(t).NewShare(request)
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.open(t).Share(request)
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("Share: %v", err)
	}
	stored, err := os.ReadFile(filepath.Join(h.dir, "shares", request))
	if err != nil || bytes.Contains(stored, secret) {
		t.Errorf("the share lies in the clear (%v)", err)
	}
	if _, err := h.open(t).Share(later); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("no such share: %v", err)
	}
	if _, err := h.open(t).NewShare("../../etc/passwd"); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("a path as an id: %v", err)
	}
	if _, ok := h.open(t).ShareRequest(vcm); ok {
		t.Error("a VCM without a link has one")
	}
	for _, id := range []string{request, later} {
		if err := h.open(t).LinkShare(vcm, id); err != nil {
			t.Fatal(err)
		}
		if linked, ok := h.open(t).ShareRequest(vcm); !ok || linked != id {
			t.Errorf("linked to %q, %v", linked, ok)
		}
	}
	h.machine["product_uuid"] = "another machine"
	if _, err := h.open(t).Share(request); !errkind.Is(err, errkind.Refused) {
		t.Errorf("on another machine: %v", err)
	}
}
