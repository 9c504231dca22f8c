package request_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

var update = flag.Bool("update", false, "write the vector files anew")

const (
	vcmID = "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"
	other = "00000000-95f4-41ab-8b0a-0c9c7ce14209"
)

var (
	created = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	within  = created.Add(time.Hour)
)

func signer(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// blank is a request of a kind with everything that every kind has.
func blank(kind request.Kind) *request.Request {
	return &request.Request{
		Kind: kind, ID: "5f0c8a10-3c5e-4d5c-9a35-aa3d2c6f1a7e",
		Created: created, NotBefore: created.Add(-time.Minute), Expires: created.Add(24 * time.Hour),
	}
}

func createRequest(t testing.TB) *request.Request {
	r := blank(request.Create)
	r.SSHAdminKey, r.RequestKey = signer(t, 2).PublicKey(), signer(t, 1).PublicKey()
	name, yes, features := "shop-7", true, licensing.STSVending|licensing.STSEA11
	r.Properties = request.Properties{Name: &name, Autostart: &yes, Features: &features}
	return r
}

func startRequest() *request.Request {
	r := blank(request.Start)
	r.VCM, r.Share = vcmID, []byte("not a real share, but it is carried")
	return r
}

func setRequest(t testing.TB) *request.Request {
	r := blank(request.SetProperties)
	r.VCM = vcmID
	name, no := "My_new_VCM1", false
	r.Properties = request.Properties{Name: &name, Autostart: &no, RequestKey: signer(t, 3).PublicKey()}
	return r
}

func sign(t testing.TB, r *request.Request) []byte {
	t.Helper()
	file, err := r.Sign(signer(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// vector is one file and what becomes of it.
type vector struct {
	name  string
	file  []byte
	class error // nil: good
	key   byte  // seed of the key to verify with
	vcm   string
	now   time.Time
}

func vectors(t testing.TB) []vector {
	create, start, set := sign(t, createRequest(t)), sign(t, startRequest()), sign(t, setRequest(t))
	edit := func(file []byte, from, to string) []byte {
		if !bytes.Contains(file, []byte(from)) {
			t.Fatalf("nothing to edit: %q", from)
		}
		return bytes.Replace(file, []byte(from), []byte(to), 1)
	}
	return []vector{
		{"create-ok", create, nil, 1, "", within},
		{"start-ok", start, nil, 1, vcmID, within},
		{"setproperties-ok", set, nil, 1, vcmID, within},
		{"first-second-ok", create, nil, 1, "", created.Add(-time.Minute)},
		{"last-second-ok", create, nil, 1, "", created.Add(24 * time.Hour)},
		{"signature-edited", edit(create, "Property.name: shop-7", "Property.name: shop-8"), request.ErrSignature, 1, "", within},
		{"signature-other-key", set, request.ErrSignature, 3, vcmID, within},
		{"signature-swapped", swap(t, start, set), request.ErrSignature, 1, vcmID, within},
		{"expired", create, request.ErrExpired, 1, "", created.Add(24*time.Hour + time.Second)},
		{"not-yet-valid", create, request.ErrNotYetValid, 1, "", created.Add(-time.Minute - time.Second)},
		{"wrong-vcm", start, request.ErrWrongVCM, 1, other, within},
		{"wrong-vcm-create", create, request.ErrWrongVCM, 1, vcmID, within},
		{"unknown-property", edit(set, "Property.name", "Property.nom"), request.ErrUnknownProperty, 1, vcmID, within},
		{"unknown-field", edit(create, "Request-ID:", "Request-Id:"), request.ErrForm, 1, "", within},
		{"trailing-bytes", append(bytes.Clone(create), "and more\n"...), request.ErrForm, 1, "", within},
		{"trailing-newline", append(bytes.Clone(create), '\n'), request.ErrForm, 1, "", within},
		{"carriage-returns", bytes.ReplaceAll(create, []byte("\n"), []byte("\r\n")), request.ErrForm, 1, "", within},
		{"unsigned", create[:bytes.Index(create, []byte("-----BEGIN"))], request.ErrForm, 1, "", within},
		{"cut-off", create[:len(create)-40], request.ErrForm, 1, "", within},
		{"duplicate-field", edit(create, "Property.name: shop-7\n", "Property.name: shop-7\nProperty.name: shop-7\n"), request.ErrForm, 1, "", within},
		{"out-of-order", edit(create, "Property.name: shop-7\nProperty.autostart: true\n", "Property.autostart: true\nProperty.name: shop-7\n"), request.ErrForm, 1, "", within},
		{"not-canonical-value", edit(create, "Property.autostart: true", "Property.autostart: True"), request.ErrForm, 1, "", within},
		{"features-as-names", edit(create, "Property.features: 05000000", "Property.features: STSVending|STSEA11"), request.ErrForm, 1, "", within},
		{"time-zone", edit(create, "Created: 2026-03-01T10:00:00Z", "Created: 2026-03-01T11:00:00+01:00"), request.ErrForm, 1, "", within},
		{"missing-key", edit(create, "SSHAdmin-Key: "+request.KeyText(signer(t, 2).PublicKey())+"\n", ""), request.ErrForm, 1, "", within},
		{"key-comment", edit(create, request.KeyText(signer(t, 2).PublicKey()), request.KeyText(signer(t, 2).PublicKey())+" me"), request.ErrForm, 1, "", within},
		{"uuid-upper-case", edit(start, vcmID, strings.ToUpper(vcmID)), request.ErrForm, 1, vcmID, within},
		{"share-not-base64", edit(start, "Start-Share: ", "Start-Share: *"), request.ErrForm, 1, vcmID, within},
		{"restrict-without-share", edit(set, "Property.autostart: false", "Property.restrict_startup: true"), request.ErrForm, 1, vcmID, within},
		{"both-start-rules", edit(create, "Property.autostart: true", "Property.autostart: true\nProperty.restrict_startup: true"), request.ErrForm, 1, "", within},
		{"wrong-kind", edit(start, "Kind: start", "Kind: delete"), request.ErrForm, 1, vcmID, within},
		{"empty", nil, request.ErrForm, 1, "", within},
	}
}

// swap gives one file another's signature.
func swap(t testing.TB, to, from []byte) []byte {
	t.Helper()
	cut := func(p []byte) int { return bytes.Index(p, []byte("-----BEGIN")) }
	return append(bytes.Clone(to[:cut(to)]), from[cut(from):]...)
}

func className(class error) string {
	if class == nil {
		return "ok"
	}
	return class.Error()
}

// TestVectors checks the committed files, not freshly made ones: a change of the
// form cannot pass unnoticed. "-update" writes them.
func TestVectors(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("testdata", "vectors")
	for _, v := range vectors(t) {
		path := filepath.Join(dir, v.name+".req")
		if *update {
			if err := os.WriteFile(path, v.file, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(file, v.file) {
			t.Errorf("%s: the program no longer makes this file", v.name)
		}
		r, err := request.Parse(file)
		if err == nil {
			err = r.Verify(signer(t, v.key).PublicKey(), v.vcm, v.now)
		}
		if !errors.Is(err, v.class) || (err == nil) != (v.class == nil) {
			t.Errorf("%s: %v, want %s", v.name, err, className(v.class))
		}
		if err != nil && len(err.Error()) < 20 {
			t.Errorf("%s: the error %q says too little", v.name, err)
		}
	}
}

func TestKindsOfFailure(t *testing.T) {
	t.Parallel()
	want := map[error]errkind.Kind{
		request.ErrForm: errkind.Invalid, request.ErrUnknownProperty: errkind.Invalid, request.ErrSignature: errkind.Integrity,
		request.ErrExpired: errkind.Refused, request.ErrNotYetValid: errkind.Refused, request.ErrWrongVCM: errkind.Refused,
	}
	seen := map[error]bool{}
	for _, v := range vectors(t) {
		r, err := request.Parse(v.file)
		if err == nil {
			err = r.Verify(signer(t, v.key).PublicKey(), v.vcm, v.now)
		}
		if err == nil {
			continue
		}
		seen[v.class] = true
		if got := errkind.Of(err); got != want[v.class] {
			t.Errorf("%s: kind %v, want %v", v.name, got, want[v.class])
		}
	}
	for class := range want {
		if !seen[class] {
			t.Errorf("no vector fails with %q", class)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.file)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := request.Parse(file)
		if err != nil {
			return
		}
		message, err := r.Marshal()
		if err != nil || !bytes.HasPrefix(file, message) {
			t.Fatalf("accepted %q but prints %q (%v)", file, message, err)
		}
	})
}

// shareKey is a well-formed public share key.
func shareKey() string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, 32)) }
