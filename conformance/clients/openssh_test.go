package clients_test

import (
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// identity is a client key, also as a file for OpenSSH.
type identity struct {
	key  ssh.Signer
	file string
}

func newIdentity(t *testing.T, dir, name string) identity {
	t.Helper()
	id := identity{file: filepath.Join(dir, name)}
	if out := run(t, dir, "", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", id.file); out.code != 0 {
		t.Fatalf("ssh-keygen: %s", out.stderr)
	}
	p, err := os.ReadFile(id.file)
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(p); block == nil {
		t.Fatal("ssh-keygen wrote no PEM")
	}
	if id.key, err = ssh.ParsePrivateKey(p); err != nil {
		t.Fatal(err)
	}
	return id
}

// endpoint is one SSH service of a live platform, and the key that may use it.
type endpoint struct {
	name      string // with the owner, for messages
	service   string
	address   string
	principal string // that the host certificate carries
	right     identity
}

// host makes a platform with a VCM all of whose services have keys of the test's
// making, and returns them.
func host(t *testing.T, dir string) (*rig.Rig, []endpoint) {
	t.Helper()
	r := binaries.New(t)
	ctx := t.Context()
	if err := r.Maker(ctx); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Unit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.EnrolProvider(ctx); err != nil {
		t.Fatal(err)
	}
	vcm := vcmServices(t, r, dir) // while the tools can still use the orchestrator
	return r, append(platformServices(t, r, dir), vcm...)
}

func platformServices(t *testing.T, r *rig.Rig, dir string) []endpoint {
	t.Helper()
	esn, err := r.ESN()
	if err != nil {
		t.Fatal(err)
	}
	places, err := r.Endpoints()
	if err != nil {
		t.Fatal(err)
	}
	var out []endpoint
	principal := func(service string) string { return strings.ToLower(esn + "/" + service) }
	for _, service := range []string{"updater", "monitor", "setup", "launcher", "orchestrator"} {
		id := newIdentity(t, dir, "platform-"+service)
		line := strings.Fields(rig.KeyLine(id.key.PublicKey()))
		if _, err := r.Run(t.Context(), rig.Provider, "hsmadmin", "keys", "remote-set", service, line[0], line[1]); err != nil {
			t.Fatal(err)
		}
		out = append(out, endpoint{"the platform's " + service, service, places[service], principal(service), id})
	}
	return append(out, endpoint{"the platform's sshadmin", "sshadmin", places["sshadmin"], principal("sshadmin"), adminBackup(t, r, dir)})
}

// adminBackup is the provider's sshadmin key, as OpenSSH reads its backup.
func adminBackup(t *testing.T, r *rig.Rig, dir string) identity {
	t.Helper()
	const passphrase = "only-of-this-test"
	secret, id := filepath.Join(dir, "passphrase"), identity{file: filepath.Join(dir, "platform-sshadmin")}
	if err := os.WriteFile(secret, []byte(passphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(t.Context(), rig.Provider, "hsmadmin", "keys", "backup", "--passphrase-file", secret, id.file); err != nil {
		t.Fatal(err)
	}
	if out := run(t, dir, "", "ssh-keygen", "-q", "-p", "-P", passphrase, "-N", "", "-f", id.file); out.code != 0 {
		t.Fatalf("ssh-keygen -p: %s", out.stderr)
	}
	return id
}

// vcmServices makes a VCM by a request that introduces the test's own keys.
func vcmServices(t *testing.T, r *rig.Rig, dir string) []endpoint {
	t.Helper()
	admin, signer := newIdentity(t, dir, "vcm-sshadmin"), newIdentity(t, dir, "tenantreq")
	now := time.Now().UTC().Truncate(time.Second)
	file, err := (&request.Request{
		Kind: request.Create, ID: uuid.NewString(), Created: now, NotBefore: now, Expires: now.Add(time.Hour),
		SSHAdminKey: admin.key.PublicKey(), RequestKey: signer.key.PublicKey(),
	}).Sign(signer.key)
	if err != nil {
		t.Fatal(err)
	}
	path := r.Mail("own.req")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := r.Create(t.Context(), path, "own")
	if err != nil {
		t.Fatal(err)
	}
	unit, err := r.UnitKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := rig.DialService(t.Context(), vcmEndpoint(t, v, "sshadmin"), "sshadmin", admin.key, unit)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	client := sshadmin.NewSshAdminClient(s.Thrift())
	present, err := client.ShowKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	esn, err := r.ESN()
	if err != nil {
		t.Fatal(err)
	}
	var out []endpoint
	var install []*sshadmin.ClientKey
	for _, p := range present {
		id := admin
		if p.ServiceName != "sshadmin" {
			id = newIdentity(t, dir, "vcm-"+p.ServiceName)
			install = append(install, &sshadmin.ClientKey{ServiceName: p.ServiceName, ClientKey: rig.KeyLine(id.key.PublicKey())})
		}
		out = append(out, endpoint{"the VCM's " + p.ServiceName, p.ServiceName, vcmEndpoint(t, v, p.ServiceName),
			strings.ToLower(esn + "/" + v.UUID + "/" + p.ServiceName), id})
	}
	if len(out) < 3 {
		t.Fatalf("the VCM has %d SSH services", len(out))
	}
	if _, err := client.InstallKeys(t.Context(), install); err != nil {
		t.Fatal(err)
	}
	return out
}

// vcmEndpoint reads an address in the VCM's file.
func vcmEndpoint(t *testing.T, v *rig.VCM, service string) string {
	t.Helper()
	p, err := os.ReadFile(v.File)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(p), "\nEndpoint."+service+": ")
	address, _, _ := strings.Cut(rest, "\n")
	if !found {
		t.Fatalf("%s names no service %s", v.File, service)
	}
	return address
}

// openssh is OpenSSH's client without anything of the user's configuration.
type openssh struct {
	t    *testing.T
	dir  string
	unit ssh.PublicKey
}

func (o openssh) ssh(e endpoint, stdin string, args ...string) ran {
	o.t.Helper()
	host, port, err := net.SplitHostPort(e.address)
	if err != nil {
		o.t.Fatal(err)
	}
	known := filepath.Join(o.dir, "known_hosts")
	base := []string{"-F", "none", "-p", port, "-o", "UserKnownHostsFile=" + known, "-o", "GlobalKnownHostsFile=none",
		"-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=" + e.principal, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
		"-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "User=" + e.service}
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "HOST", host)
	}
	return run(o.t, o.dir, stdin, "ssh", slices.Concat(base, args)...)
}

// A question that every service of a kind answers, and a part of the answer.
// nobody is a method that no Thrift service has: the answer to call number 7 is an
// exception. The Conductor identifies its module.
const (
	nobodysCall   = "\x00\x00\x00\x13\x80\x01\x00\x01\x00\x00\x00\x06nobody\x00\x00\x00\x07\x00"
	nobodysAnswer = "\x80\x01\x00\x03\x00\x00\x00\x06nobody\x00\x00\x00\x07"

	identifyCall   = "\x00\x10\xed\xf1\x2b\x00\xfe\xedSM?DI9A51\r"
	identifyAnswer = "\xed\xf1\x2b\x00\xfe\xedSM!DI00"
)

// question is what to ask a service, and what the answer has in it.
func question(service string) (call, answer string) {
	if service == "conductor" {
		return identifyCall, identifyAnswer
	}
	return nobodysCall, nobodysAnswer
}

func TestOpenSSH(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, endpoints := host(t, dir)
	unit, err := r.UnitKey()
	if err != nil {
		t.Fatal(err)
	}
	authority := "@cert-authority * " + string(ssh.MarshalAuthorizedKey(unit))
	if err := os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(authority), 0o600); err != nil {
		t.Fatal(err)
	}
	stranger := newIdentity(t, dir, "stranger")
	o := openssh{t: t, dir: dir, unit: unit}
	for i, e := range endpoints {
		// The neighbour may use another service; a tenant's may be the platform's.
		neighbour := endpoints[(i+1)%len(endpoints)].right
		t.Run(e.name, func(t *testing.T) {
			o := o
			o.t = t
			call, answer := question(e.service)
			use := func(id identity) []string { return []string{"-i", id.file, "-s", "HOST", e.service} }
			serves := func(when string) {
				t.Helper()
				out := o.ssh(e, call, use(e.right)...)
				if out.code != 0 || !strings.Contains(out.stdout, answer) {
					t.Errorf("%s: exit code %d, %q\n%s", when, out.code, out.stdout, out.stderr)
				}
			}
			serves("the right key")
			for _, bad := range []struct {
				what, want string
				args       []string
			}{
				{"a stranger's key", "Permission denied (publickey)", use(stranger)},
				{"another service's key", "Permission denied (publickey)", use(neighbour)},
				{"no key", "Permission denied (publickey)", append([]string{"-o", "PubkeyAuthentication=no"}, use(e.right)...)},
				{"a password", "Permission denied (publickey)", append([]string{"-o", "PreferredAuthentications=password,keyboard-interactive"}, use(e.right)...)},
				{"another service's subsystem", "subsystem request failed", []string{"-i", e.right.file, "-s", "HOST", e.service + "2"}},
				{"a shell", "no shell here", []string{"-i", e.right.file, "HOST"}},
				{"a command", "no exec here", []string{"-i", e.right.file, "HOST", "id"}},
				{"a tunnel", "administratively prohibited", []string{"-i", e.right.file, "-W", e.address, "HOST"}},
				{"a tunnel back", "remote port forwarding failed", []string{"-i", e.right.file, "-o", "ExitOnForwardFailure=yes", "-N",
					"-R", "127.0.0.1:0:" + e.address, "HOST"}},
			} {
				out := o.ssh(e, call, bad.args...)
				if out.code == 0 || out.stdout != "" || !strings.Contains(out.stderr, bad.want) {
					t.Errorf("%s: exit code %d, stdout %q, stderr %q, not %q", bad.what, out.code, out.stdout, out.stderr, bad.want)
				}
			}
			other := e
			other.principal = endpoints[(i+1)%len(endpoints)].principal
			if out := o.ssh(other, call, use(e.right)...); out.code == 0 || !strings.Contains(out.stderr, "Host key verification failed") {
				t.Errorf("it passes for %s: exit code %d, %s", other.principal, out.code, out.stderr)
			}
			serves("the right key after all of this")
		})
	}
}

// TestRequestSignature checks a tenant's request with ssh-keygen alone.
func TestRequestSignature(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := binaries.New(t)
	file, err := r.Request(t.Context(), "checked", "--autostart")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin = "-----BEGIN SSH SIGNATURE-----"
	message, signature, found := strings.Cut(string(text), begin)
	_, key, introduced := strings.Cut(message, "\nRequest-Key: ")
	key, _, _ = strings.Cut(key, "\n")
	if !found || !introduced {
		t.Fatalf("no signed request:\n%s", text)
	}
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sig, signers := write("request.sig", begin+signature), write("signers", "tenant "+key+"\n")
	verify := func(namespace, message string) ran {
		return run(t, dir, message, "ssh-keygen", "-Y", "verify", "-f", signers, "-I", "tenant", "-n", namespace, "-s", sig)
	}
	if out := verify("tesserae-request", message); out.code != 0 || !strings.Contains(out.stdout, `Good "tesserae-request" signature for tenant`) {
		t.Errorf("exit code %d: %s%s", out.code, out.stdout, out.stderr)
	}
	for what, out := range map[string]ran{
		"an edited request":   verify("tesserae-request", strings.Replace(message, "checked", "chequed", 1)),
		"another namespace":   verify("file", message),
		"a request cut short": verify("tesserae-request", strings.TrimSuffix(message, "\n")),
	} {
		if out.code == 0 || strings.Contains(out.stdout, "Good") {
			t.Errorf("%s: exit code %d: %s", what, out.code, fmt.Sprint(out.stdout, out.stderr))
		}
	}
}
