package signedlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

const (
	testESN = "0000-1111-2222"
	testVCM = "3f0c2f6e-6f0b-4c56-8d43-0a6d1b9b7c11"
	sold    = "12345678901234567890"
	twice   = "09876543210987654321"
)

type bucket map[string][]byte

func (b bucket) Get(key []byte) ([]byte, error) { return b[string(key)], nil }
func (b bucket) Put(key, value []byte) error {
	b[string(key)] = bytes.Clone(value)
	return nil
}
func (b bucket) Delete(key []byte) error { delete(b, string(key)); return nil }
func (b bucket) Range(prefix []byte, fn func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if strings.HasPrefix(k, string(prefix)) {
			if err := fn([]byte(k), b[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// access is that of a log that no service stands behind.
type access struct{ source Source }

func (a access) Source(*cli.Context) (Source, error) { return a.source, nil }
func (a access) Monitor(*cli.Context, func(context.Context, *monitor.MonitorClient) error) error {
	return errors.New("there is no service")
}

// bench is a tool with two exports of one log on disk.
type bench struct {
	t    *testing.T
	dir  string
	app  func(env *console.Env) *cli.App
	logs []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, unitKey, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	unit, err := ssh.NewSignerFromKey(unitKey)
	must(err)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	key, err := ssh.NewPublicKey(public)
	must(err)
	cert := &ssh.Certificate{Key: key, CertType: ssh.HostCert, ValidBefore: ssh.CertTimeInfinity,
		ValidPrincipals: []string{hsmapi.Principal(testESN, testVCM, keyService)}}
	must(cert.SignCert(rand.Reader, unit))
	log, err := auditlog.New(auditlog.Config{Origin: "tesserae/" + testESN + "/" + testVCM, Key: private, Certificate: string(ssh.MarshalAuthorizedKey(cert))})
	must(err)

	b := &bench{t: t, dir: t.TempDir()}
	store := bucket{}
	for piece := range 2 {
		for i := range 5 {
			token := fmt.Sprintf("%020d", 10*piece+i)
			switch i {
			case 2:
				token = twice
			case 3:
				if piece == 1 {
					token = sold
				}
			}
			_, err := log.Append(store, auditlog.Entry{
				Time: time.Unix(int64(1_800_000_000+i), 0).UTC(), Kind: "vend.credit", Actor: "till", Subject: "600727000000000009",
				Detail: map[string]string{tokenDigest: fmt.Sprintf("%x", sha256.Sum256([]byte(token))), "units": "102"},
			})
			must(err)
		}
		e, err := log.Export(store, uint64(5*piece), false, 1<<20)
		must(err)
		path := filepath.Join(b.dir, fmt.Sprintf("%d.log", piece))
		must(os.WriteFile(path, e.Text, 0o600))
		b.logs = append(b.logs, path)
	}
	source := Source{Name: testVCM, ESN: testESN, UUID: testVCM, Unit: unit.PublicKey()}
	b.app = func(env *console.Env) *cli.App {
		return &cli.App{Name: "logs", Action: console.Group, Commands: Commands(env, access{source}, nil, nil)}
	}
	return b
}

func (b *bench) run(args ...string) (code int, out string) {
	b.t.Helper()
	var said bytes.Buffer
	env := &console.Env{Stdin: strings.NewReader(""), Stdout: &said, Stderr: &said, Clock: clock.System(), Getenv: func(string) string { return "" }}
	code = env.Run(b.t.Context(), b.app(env), append([]string{"logs"}, args...))
	return code, said.String()
}

func (b *bench) want(code int, text string, args ...string) {
	b.t.Helper()
	if got, out := b.run(args...); got != code || !strings.Contains(out, text) {
		b.t.Errorf("%q: exit %d, said %q; want %d, %q", args, got, out, code, text)
	}
}

// TestProve proves one sale out of many to who has nothing but the log's key:
// the proof holds, shows no other entry, and no change of it does.
func TestProve(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	proof := filepath.Join(b.dir, "proof")
	prove := func(more ...string) []string {
		return append(append([]string{"prove", "--out", proof}, more...), b.logs...)
	}
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(sold)))
	for _, by := range [][]string{{"--token", "1234 5678 9012 3456 7890"}, {"--token-sha256", strings.ToUpper(digest)}, {"--seq", "8"}} {
		b.want(0, "entry 8 is in the log", prove(append([]string{"--force"}, by...)...)...)
		b.want(0, "entry 8 is in the log", "verify", proof)
	}
	text, err := os.ReadFile(proof)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), tokenDigest); n != 1 || !strings.Contains(string(text), digest) {
		t.Errorf("the proof tells of %d tokens", n)
	}
	for name, edited := range map[string]string{
		"amount": strings.Replace(string(text), "units=102", "units=999", 1),
		"token":  strings.Replace(string(text), digest, strings.Repeat("0", len(digest)), 1),
		"number": strings.Replace(string(text), "Entry: 8 ", "Entry: 7 ", 1),
	} {
		if edited == string(text) {
			t.Fatalf("%s: nothing was edited in %q", name, text)
		}
		if err := os.WriteFile(proof, []byte(edited), 0o600); err != nil {
			t.Fatal(err)
		}
		b.want(7, "", "verify", proof)
	}
	forged := filepath.Join(b.dir, "forged.log")
	export, err := os.ReadFile(b.logs[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(forged, bytes.Replace(export, []byte("units=102"), []byte("units=999"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	b.want(7, "", "prove", "--seq", "8", "--out", proof, "--force", forged)
	b.want(3, "exists", prove("--seq", "8")...)
	b.want(4, "is not in these files", prove("--force", "--seq", "10")...)
	b.want(4, "is not in these files", prove("--force", "--token", strings.Repeat("5", 20))...)
	b.want(2, "say which with --seq", prove("--force", "--token", twice)...)
	b.want(2, "one of --seq", prove("--force")...)
	b.want(2, "one of --seq", prove("--force", "--seq", "8", "--token", sold)...)
	b.want(2, "20 digits", prove("--force", "--token", "123")...)
	b.want(2, "64 hexadecimal", prove("--force", "--token-sha256", "12")...)
	b.want(2, "needs FILE", "prove", "--seq", "8", "--out", proof)
}
