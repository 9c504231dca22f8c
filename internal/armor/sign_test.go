package armor_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const namespace = "tesserae-test"

func key(t testing.TB, seed byte) (ed25519.PrivateKey, ssh.Signer) {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return private, signer
}

func signed(t testing.TB, signer ssh.Signer) (message, file []byte) {
	t.Helper()
	message, err := armor.Document{Title: title, Fields: []armor.Field{{Name: "A", Value: "b"}}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	file, err = armor.Sign(message, signer, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return message, file
}

func TestSignAndVerify(t *testing.T) {
	t.Parallel()
	_, signer := key(t, 1)
	message, file := signed(t, signer)
	got, err := armor.Verify(file, signer.PublicKey(), namespace)
	if err != nil || !bytes.Equal(got, message) {
		t.Fatalf("Verify = %q, %v", got, err)
	}
	claimed, err := armor.SignerKey(file)
	if err != nil || !bytes.Equal(claimed.Marshal(), signer.PublicKey().Marshal()) {
		t.Errorf("SignerKey = %v, %v", claimed, err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	_, signer := key(t, 1)
	_, other := key(t, 2)
	message, file := signed(t, signer)
	signature := file[len(message):]
	edited := bytes.Replace(file, []byte("A: b"), []byte("A: c"), 1)
	block, _ := pem.Decode(signature)
	for what, tc := range map[string]struct {
		file []byte
		key  ssh.Signer
		ns   string
		kind errkind.Kind
		want string
	}{
		"edited":            {edited, signer, namespace, errkind.Integrity, "changed after it was signed"},
		"other key":         {file, other, namespace, errkind.Integrity, "signed by key SHA256:"},
		"other namespace":   {file, signer, "tesserae-licence", errkind.Integrity, "namespace \"tesserae-test\""},
		"no signature":      {message, signer, namespace, errkind.Invalid, "carries no signature"},
		"nothing signed":    {signature, signer, namespace, errkind.Invalid, "without a text"},
		"trailing bytes":    {append(bytes.Clone(file), "x\n"...), signer, namespace, errkind.Invalid, "line 9: 2 bytes follow"},
		"trailing newline":  {append(bytes.Clone(file), '\n'), signer, namespace, errkind.Invalid, "1 bytes follow"},
		"signed twice":      {append(bytes.Clone(file), signature...), signer, namespace, errkind.Invalid, "follow the signature"},
		"cut off":           {file[:len(file)-10], signer, namespace, errkind.Invalid, "cut off"},
		"carriage returns":  {bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n")), signer, namespace, errkind.Invalid, "carries no signature"},
		"64 columns":        {append(bytes.Clone(message), pem.EncodeToMemory(block)...), signer, namespace, errkind.Invalid, "laid out"},
		"garbage":           {append(bytes.Clone(message), "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"...), signer, namespace, errkind.Invalid, "not readable"},
		"no base64":         {append(bytes.Clone(message), "-----BEGIN SSH SIGNATURE-----\n*\n-----END SSH SIGNATURE-----\n"...), signer, namespace, errkind.Invalid, "not readable"},
		"larger than limit": {append(bytes.Repeat([]byte("x"), armor.MaxSize), file...), signer, namespace, errkind.Invalid, "larger than"},
	} {
		_, err := armor.Verify(tc.file, tc.key.PublicKey(), tc.ns)
		if !errkind.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v (kind %v), want %v with %q", what, err, errkind.Of(err), tc.kind, tc.want)
		}
	}
}

func TestAttachTakesAnyLayoutAndPrintsOne(t *testing.T) {
	t.Parallel()
	_, signer := key(t, 1)
	message, file := signed(t, signer)
	sig, err := sshsig.Unarmor(file[len(message):])
	if err != nil {
		t.Fatal(err)
	}
	got, err := armor.Attach(message, sshsig.Armor(sig)) // 64 columns
	if err != nil || !bytes.Equal(got, file) {
		t.Errorf("Attach = %q, %v", got, err)
	}
	for what, in := range map[string][2][]byte{
		"no signature":   {message, []byte("hello")},
		"extra text":     {message, append(sshsig.Armor(sig), "hello"...)},
		"signed already": {file, sshsig.Armor(sig)},
		"no newline":     {[]byte("text"), sshsig.Armor(sig)},
	} {
		if _, err := armor.Attach(in[0], in[1]); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSSHKeygenVerifiesOurs(t *testing.T) {
	t.Parallel()
	_, signer := key(t, 1)
	_, file := signed(t, signer)
	message, signature, err := armor.Split(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	allowed := write(t, dir, "allowed", append([]byte("tenant "), ssh.MarshalAuthorizedKey(signer.PublicKey())...))
	sig := write(t, dir, "sig", signature)
	if out, err := keygen(t, message, "-Y", "verify", "-f", allowed, "-I", "tenant", "-n", namespace, "-s", sig); err != nil {
		t.Errorf("ssh-keygen refused a good file: %v\n%s", err, out)
	}
	if out, err := keygen(t, append(message, '\n'), "-Y", "verify", "-f", allowed, "-I", "tenant", "-n", namespace, "-s", sig); err == nil {
		t.Errorf("ssh-keygen accepted a changed message:\n%s", out)
	}
}

func TestWeVerifySSHKeygens(t *testing.T) {
	t.Parallel()
	private, signer := key(t, 3)
	block, err := ssh.MarshalPrivateKey(private, "tenant")
	if err != nil {
		t.Fatal(err)
	}
	message, _ := signed(t, signer)
	identity := write(t, t.TempDir(), "id", pem.EncodeToMemory(block))
	out, err := keygen(t, message, "-Y", "sign", "-f", identity, "-n", namespace)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// What ssh-keygen prints is already our only layout.
	if _, err := armor.Verify(append(bytes.Clone(message), out...), signer.PublicKey(), namespace); err != nil {
		t.Error(err)
	}
}

func FuzzSplit(f *testing.F) {
	_, signer := key(f, 1)
	_, file := signed(f, signer)
	f.Add(file)
	f.Add(append(bytes.Clone(file), '\n'))
	f.Add([]byte("tesserae test\n-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		message, signature, err := armor.Split(file)
		if err != nil {
			return
		}
		again, err := armor.Attach(message, signature)
		if err != nil || !bytes.Equal(again, file) {
			t.Fatalf("accepted %q but prints %q (%v)", file, again, err)
		}
	})
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func keygen(t *testing.T, stdin []byte, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Fatal("this test needs ssh-keygen (Debian package openssh-client)")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	return cmd.Output()
}
