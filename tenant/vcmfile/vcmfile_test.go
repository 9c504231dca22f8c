package vcmfile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
	"github.com/tesserae-hsm/tesserae/tenant/request"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

const esn = "1A23-BC45-6789"

// chain is a maker and a unit with its warrant.
type chain struct {
	root, unit ssh.Signer
	warrant    string
}

func newChain(t testing.TB) chain {
	t.Helper()
	c := chain{root: sshrpctest.Key(t), unit: sshrpctest.Key(t)}
	transaction, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(&transaction.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file, err := warrant.Sign(warrant.Warrant{
		Unit: warrant.Unit{ESN: esn, ModuleID: "00000100", FirmwareID: "STS64V01", HardwareID: "TSM500E1",
			UnitKey: request.KeyText(c.unit.PublicKey()), EncryptionKey: base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, 32))},
		Features: licensing.STSVending, TransactionKey: request.KeyText(key), Issued: time.Unix(1_790_000_000, 0).UTC(),
	}, c.root)
	if err != nil {
		t.Fatal(err)
	}
	c.warrant = string(file)
	return c
}

func (c chain) file() *vcmfile.File {
	name, yes, no, features := "shop 7", true, false, licensing.STSVending
	return &vcmfile.File{
		UUID: "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209", ESN: esn, ModuleID: "00000101", RequestID: "5f0c8a10-3c5e-4d5c-9a35-aa3d2c6f1a7e",
		Created: time.Unix(1_800_000_000, 0).UTC(), Address: "127.77.0.2",
		Endpoints:      []vcmfile.Endpoint{{Service: "sshadmin", Address: "127.77.0.2:2201"}, {Service: "tokenapi", Address: "[::1]:9443"}},
		Properties:     request.Properties{Name: &name, Autostart: &yes, RestrictStartup: &no, SerialCardreader: &no, Features: &features},
		IsolationLevel: "rootless",
		Isolation: []vcmfile.Control{
			{Control: "network", Wanted: "no socket", Got: "no socket", Proof: "socket(2): EPERM"},
			{Control: "cgroup", Wanted: "v2", Got: "none", Reason: "not writable", Proof: "open: EACCES"},
		},
		UnitKey: request.KeyText(c.unit.PublicKey()), Warrant: c.warrant,
	}
}

func (c chain) sign(t testing.TB, f *vcmfile.File, signer ssh.Signer, namespace string) []byte {
	t.Helper()
	message, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := armor.Sign(message, signer, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	want := c.file()
	file := c.sign(t, want, c.unit, vcmfile.Namespace)
	got, err := vcmfile.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := got.Verify(c.root.PublicKey())
	if err != nil || w.ESN != esn {
		t.Errorf("Verify = %+v, %v", w, err)
	}
	if a, err := got.Endpoint("tokenapi"); err != nil || a != "[::1]:9443" {
		t.Errorf("tokenapi at %q, %v", a, err)
	}
	if _, err := got.Endpoint("tsmweb"); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("tsmweb: %v", err)
	}
	if !reflect.DeepEqual(got.Isolation, want.Isolation) || !reflect.DeepEqual(got.Properties, want.Properties) {
		t.Errorf("read back %+v %+v", got.Isolation, got.Properties)
	}
	// The signature can be made elsewhere.
	message, signature, err := armor.Split(file)
	if err != nil {
		t.Fatal(err)
	}
	attached, err := vcmfile.Attach(message, string(signature))
	if err != nil || !bytes.Equal(attached, file) {
		t.Errorf("Attach: %v", err)
	}
}

func TestIsolationTextThatDoesNotFitALine(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	f := c.file()
	f.Isolation = []vcmfile.Control{{Control: " a | b ", Wanted: "-", Got: "line\nline", Reason: "é", Proof: "\x00"}}
	got, err := vcmfile.Parse(c.sign(t, f, c.unit, vcmfile.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	if want := []vcmfile.Control{{Control: "a / b", Got: "line line"}}; !reflect.DeepEqual(got.Isolation, want) {
		t.Errorf("read %+v", got.Isolation)
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	c, other := newChain(t), newChain(t)
	good := c.sign(t, c.file(), c.unit, vcmfile.Namespace)
	swapped := c.file()
	swapped.Warrant = other.warrant
	foreign := c.file()
	foreign.ESN = "9999-9999-9999"
	for what, tc := range map[string]struct {
		file []byte
		root ssh.PublicKey
	}{
		"other maker":       {good, other.root.PublicKey()},
		"edited":            {bytes.Replace(good, []byte("127.77.0.2:2201"), []byte("127.77.0.3:2201"), 1), c.root.PublicKey()},
		"other unit signed": {c.sign(t, c.file(), other.unit, vcmfile.Namespace), c.root.PublicKey()},
		"other namespace":   {c.sign(t, c.file(), c.unit, "tesserae-platform-log"), c.root.PublicKey()},
		"other's warrant":   {c.sign(t, swapped, c.unit, vcmfile.Namespace), other.root.PublicKey()},
		"other ESN":         {c.sign(t, foreign, c.unit, vcmfile.Namespace), c.root.PublicKey()},
	} {
		f, err := vcmfile.Parse(tc.file)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := f.Verify(tc.root); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %v (%v)", what, err, errkind.Of(err))
		}
	}
}

func TestFormRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	good := c.sign(t, c.file(), c.unit, vcmfile.Namespace)
	for what, edit := range map[string][2]string{
		"unknown field":     {"Module-ID:", "Module-Id:"},
		"unknown property":  {"Property.name:", "Property.nom:"},
		"upper-case UUID":   {"UUID: 4f9d", "UUID: 4F9D"},
		"order":             {"UUID: 4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209\nESN: " + esn, "ESN: " + esn + "\nUUID: 4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"},
		"endpoint by name":  {"Endpoint.sshadmin: 127.77.0.2:2201", "Endpoint.sshadmin: localhost:2201"},
		"long address":      {"[::1]:9443", "[0::1]:9443"},
		"time zone":         {"Created: 2027-01-15T08:00:00Z", "Created: 2027-01-15T09:00:00+01:00"},
		"isolation columns": {"network | no socket | no socket | - | socket", "network | no socket | no socket | socket"},
		"isolation number":  {"Isolation.01:", "Isolation.1:"},
		"key comment":       {"Unit-Key: " + request.KeyText(c.unit.PublicKey()), "Unit-Key: " + request.KeyText(c.unit.PublicKey()) + " me"},
		"address":           {"Address: 127.77.0.2", "Address: 127.77.2"},
		"trailing bytes":    {"-----END SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----\n\n"},
	} {
		// The warrant inside begins its lines with a space; what is edited does not.
		file := strings.Replace(string(good), edit[0], edit[1], 1)
		if what == "trailing bytes" {
			file = string(good) + "\n"
		}
		if file == string(good) {
			t.Fatalf("%s: nothing to edit", what)
		}
		if _, err := vcmfile.Parse([]byte(file)); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, change := range map[string]func(f *vcmfile.File){
		"no warrant":   func(f *vcmfile.File) { f.Warrant = "" },
		"half seconds": func(f *vcmfile.File) { f.Created = f.Created.Add(time.Millisecond) },
		"no key":       func(f *vcmfile.File) { f.UnitKey = "" },
		"no UUID":      func(f *vcmfile.File) { f.UUID = "" },
	} {
		f := c.file()
		change(f)
		if _, err := f.Marshal(); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestSSHKeygenVerifiesAVCMFile(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	message, signature, err := armor.Split(c.sign(t, c.file(), c.unit, vcmfile.Namespace))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"allowed": append([]byte("unit "), ssh.MarshalAuthorizedKey(c.unit.PublicKey())...), "sig": signature} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "ssh-keygen", "-Y", "verify", "-f", filepath.Join(dir, "allowed"), "-I", "unit",
		"-n", vcmfile.Namespace, "-s", filepath.Join(dir, "sig"))
	cmd.Stdin = bytes.NewReader(message)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("ssh-keygen (Debian package openssh-client): %v\n%s", err, out)
	}
}

func FuzzParse(f *testing.F) {
	c := newChain(f)
	good := c.sign(f, c.file(), c.unit, vcmfile.Namespace)
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("Isolation.01"), []byte("Isolation.1"), 1))
	f.Fuzz(func(t *testing.T, file []byte) {
		v, err := vcmfile.Parse(file)
		if err != nil {
			return
		}
		message, err := v.Marshal()
		if err != nil || !bytes.HasPrefix(file, message) {
			t.Fatalf("accepted %q but prints %q (%v)", file, message, err)
		}
	})
}
