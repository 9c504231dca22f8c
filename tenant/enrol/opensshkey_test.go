package enrol

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
)

// The SSH library and ssh-keygen open what marshalKey writes, with the right
// passphrase only.
func TestMarshalKey(t *testing.T) {
	t.Parallel()
	for _, rounds := range []uint32{oneRound, 2, humanRounds} {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		text, err := marshalKey(rand.Reader, private, "tesserae test", []byte("a passphrase"), rounds)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := ssh.ParseRawPrivateKeyWithPassphrase(text, []byte("a passphrase"))
		if err != nil {
			t.Fatalf("%d rounds: %v", rounds, err)
		}
		if got, ok := raw.(*ed25519.PrivateKey); !ok || !got.Equal(private) {
			t.Errorf("%d rounds: another key came back", rounds)
		}
		if _, err := ssh.ParseRawPrivateKeyWithPassphrase(text, []byte("another")); err == nil {
			t.Errorf("%d rounds: a wrong passphrase opens it", rounds)
		}
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-y", "-P", "a passphrase", "-f", file).CombinedOutput(); err != nil {
			t.Errorf("%d rounds: ssh-keygen (Debian package openssh-client): %v\n%s", rounds, err, out)
		}
	}
}

func TestOnlyHumanPassphrasesAreStretched(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]uint32{"KF": oneRound, "KFSG": oneRound, "P": humanRounds, "KFSBGP": humanRounds} {
		if got := (Protection{Options: options}).rounds(); got != want {
			t.Errorf("%s: %d rounds, want %d", options, got, want)
		}
	}
}
