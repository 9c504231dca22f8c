package request_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	yes, no, long := true, false, strings.Repeat("x", request.MaxName+1)
	address := "2001:DB8::1"
	for what, change := range map[string]func(r *request.Request){
		"no id":                        func(r *request.Request) { r.ID = "" },
		"id in braces":                 func(r *request.Request) { r.ID = "{" + r.ID + "}" },
		"half seconds":                 func(r *request.Request) { r.Created = r.Created.Add(time.Millisecond) },
		"ends before it begins":        func(r *request.Request) { r.Expires = r.NotBefore.Add(-time.Second) },
		"no kind":                      func(r *request.Request) { r.Kind = "" },
		"create for a VCM":             func(r *request.Request) { r.VCM = vcmID },
		"create with a share":          func(r *request.Request) { r.Share = []byte("x") },
		"create without key":           func(r *request.Request) { r.RequestKey = nil },
		"create without admin key":     func(r *request.Request) { r.SSHAdminKey = nil },
		"create with k_tenant_req":     func(r *request.Request) { r.Properties.RequestKey = signer(t, 3).PublicKey() },
		"create with an address":       func(r *request.Request) { a := "10.0.0.1"; r.Properties.IPAddress = &a },
		"long name":                    func(r *request.Request) { r.Properties.Name = &long },
		"name with tab":                func(r *request.Request) { n := "a\tb"; r.Properties.Name = &n },
		"name with outer space":        func(r *request.Request) { n := " a"; r.Properties.Name = &n },
		"autostart and restrict":       func(r *request.Request) { r.Properties.RestrictStartup, r.ShareKey = &yes, shareKey() },
		"restrict without share key":   func(r *request.Request) { r.Properties.Autostart, r.Properties.RestrictStartup = &no, &yes },
		"share key without restrict":   func(r *request.Request) { r.ShareKey = shareKey() },
		"share key that is none":       func(r *request.Request) { r.ShareKey = "AAAA" },
		"certificate as a key":         func(r *request.Request) { r.SSHAdminKey = &ssh.Certificate{Key: r.SSHAdminKey} },
		"start with a property":        func(r *request.Request) { *r = *startRequest(); r.Properties.Autostart = &yes },
		"start for nothing":            func(r *request.Request) { *r = *startRequest(); r.VCM = "" },
		"start with a key":             func(r *request.Request) { *r = *startRequest(); r.RequestKey = signer(t, 1).PublicKey() },
		"setproperties of nothing":     func(r *request.Request) { *r = *setRequest(t); r.Properties = request.Properties{} },
		"setproperties with a share":   func(r *request.Request) { *r = *setRequest(t); r.Share = []byte("x") },
		"address not in shortest form": func(r *request.Request) { *r = *setRequest(t); r.Properties.IPAddress = &address },
	} {
		r := createRequest(t)
		change(r)
		if _, err := r.Sign(signer(t, 1)); !errors.Is(err, request.ErrForm) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := createRequest(t).Sign(signer(t, 2)); err == nil {
		t.Error("a create request was signed by a key that it does not introduce")
	}
}

func TestNothingToVerify(t *testing.T) {
	t.Parallel()
	r := createRequest(t)
	if err := r.Verify(r.RequestKey, "", within); !errors.Is(err, request.ErrSignature) {
		t.Errorf("unsigned: %v", err)
	}
	sign(t, r)
	if err := r.Verify(nil, "", within); !errors.Is(err, request.ErrSignature) {
		t.Errorf("no key: %v", err)
	}
}

func TestRestrictStartupCarriesTheShare(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	r := createRequest(t)
	r.Properties.Autostart, r.Properties.RestrictStartup, r.ShareKey = &no, &yes, shareKey()
	back, err := request.Parse(sign(t, r))
	if err != nil || back.ShareKey != shareKey() {
		t.Errorf("share key %q, %v", back.ShareKey, err)
	}
	free := setRequest(t)
	free.Properties.RestrictStartup, free.Share = &no, []byte("sealed")
	back, err = request.Parse(sign(t, free))
	if err != nil || string(back.Share) != "sealed" {
		t.Errorf("share %q, %v", back.Share, err)
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, value, want string }{
		{"name", "My_new_VCM1", "My_new_VCM1"},
		{"name", "", ""},
		{"autostart", "True", "true"},
		{"restrict_startup", "False", "false"},
		{"serial_cardreader", "true", "true"},
		{"features", "STSVending|STSEA11", "05000000"},
		{"features", "0x9A37", "00009A37"},
		{"ip_address", "10.1.2.3", "10.1.2.3"},
		{"conductor_port", "05100", "5100"},
		{"k_tenant_req", request.KeyText(signer(t, 1).PublicKey()) + " comment", request.KeyText(signer(t, 1).PublicKey())},
	} {
		got, err := request.CanonicalValue(tc.name, tc.value)
		if err != nil || got != tc.want {
			t.Errorf("%s = %q: %q, %v", tc.name, tc.value, got, err)
		}
	}
	for name, value := range map[string]string{"autostart": "yes", "features": "Vending", "ip_address": "10.1", "conductor_port": "-5100", "k_tenant_req": "ssh-rsa", "name": "a\n"} {
		if got, err := request.CanonicalValue(name, value); err == nil {
			t.Errorf("%s = %q was taken as %q", name, value, got)
		}
	}
	if _, err := request.CanonicalValue("nom", "x"); !errors.Is(err, request.ErrUnknownProperty) {
		t.Errorf("unknown property: %v", err)
	}
	var all request.Properties
	for _, name := range request.PropertyNames() {
		values := map[string]string{"features": "0x400", "ip_address": "::1", "conductor_port": "1024", "k_tenant_req": request.KeyText(signer(t, 1).PublicKey()), "name": "n"}
		value, ok := values[name]
		if !ok {
			value = "false"
		}
		if err := all.Set(name, value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := len(all.Names()); got != len(request.PropertyNames()) {
		t.Errorf("%d properties are set", got)
	}
	if f := licensing.Features(*all.Features); f != licensing.HSMSpeed0 {
		t.Errorf("features %v", f)
	}
}

func TestSSHKeygenVerifiesARequest(t *testing.T) {
	t.Parallel()
	message, signature, err := armor.Split(sign(t, createRequest(t)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"allowed": append([]byte("tenant "), ssh.MarshalAuthorizedKey(signer(t, 1).PublicKey())...), "sig": signature,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(text string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "ssh-keygen", "-Y", "verify", "-f", filepath.Join(dir, "allowed"), "-I", "tenant",
			"-n", request.Namespace, "-s", filepath.Join(dir, "sig"))
		cmd.Stdin = strings.NewReader(text)
		return cmd.CombinedOutput()
	}
	if out, err := verify(string(message)); err != nil {
		t.Errorf("ssh-keygen (Debian package openssh-client) refused a good request: %v\n%s", err, out)
	}
	if out, err := verify(strings.Replace(string(message), "shop-7", "shop-8", 1)); err == nil {
		t.Errorf("ssh-keygen accepted a changed request:\n%s", out)
	}
}
