package sshrpc_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// openssh is OpenSSH's client with nothing of the user's configuration.
type openssh struct {
	dir  string
	base []string
	host string
	// alias is the name that the host certificate must carry.
	alias string
}

func newOpenSSH(t *testing.T, w *world) openssh {
	t.Helper()
	dir := t.TempDir()
	host, port, err := net.SplitHostPort(w.address)
	if err != nil {
		t.Fatal(err)
	}
	authority := "@cert-authority * " + string(ssh.MarshalAuthorizedKey(w.unit.PublicKey()))
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, []byte(authority), 0o600); err != nil {
		t.Fatal(err)
	}
	return openssh{dir: dir, host: host, alias: principal, base: []string{
		"-F", "none", "-p", port, "-o", "UserKnownHostsFile=" + known, "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
	}}
}

// identity makes a fresh key pair with ssh-keygen.
func (o openssh) identity(t *testing.T, name string) (file string, key ssh.PublicKey) {
	t.Helper()
	file = filepath.Join(o.dir, name)
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("this test needs ssh-keygen and ssh (Debian package openssh-client): %v\n%s", err, out)
	}
	text, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err = ssh.ParseAuthorizedKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return file, key
}

func (o openssh) run(t *testing.T, stdin string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", slices.Concat(o.base, []string{"-o", "HostKeyAlias=" + o.alias}, args)...)
	cmd.Env = []string{"HOME=" + o.dir, "PATH=" + os.Getenv("PATH")}
	var out, diag bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &diag
	err = cmd.Run()
	return out.String(), diag.String(), err
}

const showKeysCall = "\x00\x00\x00\x15\x80\x01\x00\x01\x00\x00\x00\x08showKeys\x00\x00\x00\x01\x00"

func TestOpenSSHClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, nil)
	o := newOpenSSH(t, w)
	right, rightKey := o.identity(t, "right")
	wrong, _ := o.identity(t, "wrong")
	w.authorised.Set(rightKey)

	// Another service of the same unit accepts another key only.
	monitor := newWorld(t, handler{show: oneKey}, nil)
	monitor.authorised.Set(rightKey)

	t.Run("right key", func(t *testing.T) {
		out, diag, err := o.run(t, showKeysCall, "-i", right, "-s", o.host, service)
		if err != nil || !strings.Contains(out, "127.0.0.1:1") {
			t.Errorf("%v: %q\n%s", err, out, diag)
		}
	})
	refused := func(name, want string, args ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			out, diag, err := o.run(t, showKeysCall, args...)
			if err == nil || out != "" || !strings.Contains(diag, want) {
				t.Errorf("err %v, stdout %q, stderr %q, want %q", err, out, diag, want)
			}
		})
	}
	refused("wrong key", "Permission denied (publickey)", "-i", wrong, "-s", o.host, service)
	refused("no key", "Permission denied (publickey)", "-o", "PubkeyAuthentication=no", "-s", o.host, service)
	refused("password only", "Permission denied (publickey)", "-o", "PreferredAuthentications=password", "-s", o.host, service)
	refused("another subsystem", "subsystem request failed", "-i", right, "-s", o.host, "monitor")
	refused("shell", "no shell here; this port has only the subsystem \"sshadmin\"", "-i", right, o.host)
	refused("shell on a terminal", "PTY allocation request failed", "-tt", "-i", right, o.host)
	refused("command", "no exec here", "-i", right, o.host, "id")
	refused("sftp", "subsystem request failed", "-i", right, "-s", o.host, "sftp")
	refused("stdio forwarding", "administratively prohibited", "-i", right, "-W", w.address, o.host)
	refused("remote forwarding", "remote port forwarding failed", "-i", right, "-o", "ExitOnForwardFailure=yes", "-N", "-R", "127.0.0.1:0:"+w.address, o.host)
	o.alias = "aaaa-bbbb-cccc/monitor"
	refused("another service's name", "Host key verification failed", "-i", right, "-s", o.host, service)
	o.alias = principal

	t.Run("environment and agent are not taken", func(t *testing.T) {
		out, diag, err := o.run(t, showKeysCall, "-v", "-i", right, "-A", "-o", "SetEnv=X=y", "-s", o.host, service)
		if err != nil || !strings.Contains(out, "127.0.0.1:1") {
			t.Errorf("%v: %q\n%s", err, out, diag)
		}
	})
	t.Run("another service's key", func(t *testing.T) {
		other := newOpenSSH(t, monitor)
		_, otherKey := other.identity(t, "monitor")
		monitor.authorised.Set(otherKey)
		out, diag, err := other.run(t, showKeysCall, "-i", right, "-s", other.host, service)
		if err == nil || out != "" || !strings.Contains(diag, "Permission denied (publickey)") {
			t.Errorf("err %v, stdout %q, stderr %q", err, out, diag)
		}
	})
	t.Run("local forwarding", func(t *testing.T) { forwardingCarriesNothing(t, o, right, w.address) })
	if _, err := newWorldCall(t, w, right); err != nil {
		t.Errorf("after all of this the service is gone: %v", err)
	}
}

// forwardingCarriesNothing asks for a local port that leads to the service.
func forwardingCarriesNothing(t *testing.T, o openssh, identity, target string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	local := l.Addr().String()
	_ = l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "ssh", slices.Concat(o.base, []string{"-o", "HostKeyAlias=" + o.alias, "-i", identity, "-N", "-L", local + ":" + target, o.host})...)
	var diag syncBuffer
	cmd.Stderr = &diag
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	eventually(t, func() bool {
		nc, err := net.Dial("tcp", local)
		if err != nil {
			return false
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
		if n, _ := nc.Read(make([]byte, 16)); n > 0 {
			t.Error("bytes came through a forwarded port")
		}
		return true
	})
	eventually(t, func() bool { return strings.Contains(diag.String(), "administratively prohibited") })
}

// newWorldCall calls the service once with a key file.
func newWorldCall(t *testing.T, w *world, file string) (int, error) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return 0, err
	}
	w.client = signer
	_, client := w.dial(t)
	keys, err := client.ShowKeys(t.Context())
	if err != nil {
		return 0, fmt.Errorf("show keys: %w", err)
	}
	return len(keys), nil
}
