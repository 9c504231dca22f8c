package enrol_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

// host is a machine with an environment, and a home on it.
type host struct {
	dir      string
	env      map[string]string
	machine  map[string]string
	asked    []string
	answer   string
	warnings []string
}

func newHost(t *testing.T) *host {
	return &host{dir: t.TempDir(), env: map[string]string{}, machine: map[string]string{"product_uuid": "4C4C4544-0001\n", "board_serial": "B1"}}
}

func (h *host) open(t *testing.T) *enrol.Home {
	t.Helper()
	home, err := enrol.Open(h.dir, enrol.Env{
		Getenv: func(name string) string { return h.env[name] },
		Machine: func(name string) (string, error) {
			if v, ok := h.machine[name]; ok {
				return v, nil
			}
			return "", os.ErrPermission
		},
		Ask: func(prompt string, confirm bool) (string, error) {
			h.asked = append(h.asked, prompt)
			if h.answer == "" {
				return "", errors.New("nobody is here")
			}
			return h.answer, nil
		},
		Warn: func(text string) { h.warnings = append(h.warnings, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return home
}

func (h *host) key(t *testing.T, service string) ssh.PublicKey {
	t.Helper()
	key, _, err := h.open(t).EnsureKey(enrol.Tenant, service)
	if err != nil {
		t.Fatal(err)
	}
	return key.PublicKey()
}

func same(a, b ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), b.Marshal()) }

func TestEnsureKeyMakesOneKeyAndKeepsIt(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if _, err := h.open(t).Key(enrol.Tenant, "sshadmin"); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("before: %v", err)
	}
	first := h.key(t, "sshadmin")
	if again := h.key(t, "sshadmin"); !same(first, again) {
		t.Error("the second use made another key")
	}
	platform, created, err := h.open(t).EnsureKey(enrol.Platform, "sshadmin")
	if err != nil || !created || same(platform.PublicKey(), first) {
		t.Errorf("the platform's sshadmin key is the tenant's (%v, %v)", created, err)
	}
	err = filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if path != h.dir && fi.Mode().Perm() != want {
			t.Errorf("%s has mode %04o", path, fi.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	public, err := h.open(t).Public(enrol.Tenant)
	if err != nil || len(public) != 1 || public[0].Service != "sshadmin" || !same(public[0].Key, first) || public[0].Protection != "KFSG" {
		t.Errorf("Public = %+v, %v", public, err)
	}
}

func TestConcurrentFirstUseMakesOneKey(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			home, err := enrol.Open(h.dir, enrol.Env{Getenv: func(string) string { return "" }, Machine: func(string) (string, error) { return "m", nil }})
			if err != nil {
				t.Error(err)
				return
			}
			key, _, err := home.EnsureKey(enrol.Tenant, "sshadmin")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			seen[string(key.PublicKey().Marshal())] = true
		})
	}
	wg.Wait()
	if len(seen) != 1 {
		t.Errorf("%d keys came out of one home", len(seen))
	}
}

func TestProtections(t *testing.T) {
	t.Parallel()
	for options, breakIt := range map[string]func(h *host){
		"S": func(h *host) { h.machine["product_uuid"] = "another machine" },
		"B": func(h *host) { h.machine["board_serial"] = "another board" },
		"G": func(h *host) {
			if err := os.WriteFile(filepath.Join(h.dir, "global-nonce"), bytes.Repeat([]byte{1}, 32), 0o600); err != nil {
				panic(err)
			}
		},
		"K": func(h *host) {
			path := filepath.Join(h.dir, "tenant", "sshadmin", "protection.json")
			text, err := os.ReadFile(path)
			if err != nil {
				panic(err)
			}
			i := bytes.Index(text, []byte(`"nonce":"`)) + 9
			text[i] ^= 1
			if err := os.WriteFile(path, text, 0o600); err != nil {
				panic(err)
			}
		},
		"P":      func(h *host) { h.env["NFAST_KEYPROT_PASS"] = "wrong" },
		"KFSBGP": func(h *host) { h.machine["board_serial"] = "another board" },
	} {
		h := newHost(t)
		h.env["NFAST_KEYPROT"] = options
		h.env["NFAST_KEYPROT_PASS"] = "right"
		key := h.key(t, "sshadmin")
		if again, err := h.open(t).Key(enrol.Tenant, "sshadmin"); err != nil || !same(key, again.PublicKey()) {
			t.Errorf("%s: the key does not open where it was made: %v", options, err)
		}
		breakIt(h)
		if _, err := h.open(t).Key(enrol.Tenant, "sshadmin"); !errkind.Is(err, errkind.Refused) && !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: the key opens without what protects it: %v", options, err)
		}
	}
}

func TestChoiceOfProtections(t *testing.T) {
	t.Parallel()
	for what, tc := range map[string]struct {
		env     map[string]string
		without string // a machine id that cannot be read
		service string
		want    string
		kind    errkind.Kind
	}{
		"default of sshadmin":        {nil, "", "sshadmin", "KFSG", 0},
		"default of monitor":         {nil, "", "monitor", "KF", 0},
		"all services":               {map[string]string{"NFAST_KEYPROT": "GF"}, "", "monitor", "GF", 0},
		"one service":                {map[string]string{"NFAST_KEYPROT": "GF", "NFAST_MONITOR_KEYPROT": "F"}, "", "monitor", "F", 0},
		"default without S":          {nil, "product_uuid", "tenantreq", "KFG", 0},
		"a choice is never weakened": {map[string]string{"NFAST_KEYPROT": "FS"}, "product_uuid", "tenantreq", "", errkind.Refused},
		"unknown letter":             {map[string]string{"NFAST_KEYPROT": "KX"}, "", "monitor", "", errkind.Invalid},
		"letter twice":               {map[string]string{"NFAST_KEYPROT": "KK"}, "", "monitor", "", errkind.Invalid},
		"lower case":                 {map[string]string{"NFAST_KEYPROT": "kf"}, "", "monitor", "", errkind.Invalid},
	} {
		h := newHost(t)
		delete(h.machine, tc.without)
		for name, value := range tc.env {
			h.env[name] = value
		}
		_, _, err := h.open(t).EnsureKey(enrol.Tenant, tc.service)
		if tc.want == "" {
			if !errkind.Is(err, tc.kind) {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		p, err := h.open(t).PublicKey(enrol.Tenant, tc.service)
		if err != nil || p.Protection != tc.want {
			t.Errorf("%s: protection %q, %v; want %q", what, p.Protection, err, tc.want)
		}
		if warned := len(h.warnings) > 0; warned != (tc.without != "") {
			t.Errorf("%s: warnings %q", what, h.warnings)
		}
	}
}

func TestPassphraseIsAskedOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.env["NFAST_KEYPROT"], h.answer = "KP", "open sesame"
	home := h.open(t)
	for _, service := range []string{"sshadmin", "monitor"} {
		if _, _, err := home.EnsureKey(enrol.Tenant, service); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.asked) != 1 {
		t.Errorf("asked %q", h.asked)
	}
	h.answer = ""
	if _, err := h.open(t).Key(enrol.Tenant, "monitor"); err == nil {
		t.Error("the key opened although nobody gave the passphrase")
	}
}

func TestOthersCanReadTheKeyFile(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.key(t, "sshadmin")
	if err := os.Chmod(filepath.Join(h.dir, "tenant", "sshadmin", "key"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := h.open(t).Key(enrol.Tenant, "sshadmin"); !errkind.Is(err, errkind.Refused) || !strings.Contains(err.Error(), "0640") {
		t.Errorf("mode 0640: %v", err)
	}
}

func TestDamagedKeyFiles(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"key": "-----BEGIN OPENSSH PRIVATE KEY-----\n", "protection.json": "{}", "protection.json ": `{"options":"K","extra":1}`} {
		h := newHost(t)
		h.key(t, "sshadmin")
		if err := os.WriteFile(filepath.Join(h.dir, "tenant", "sshadmin", strings.TrimSpace(name)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := h.open(t).Key(enrol.Tenant, "sshadmin"); err == nil || errkind.Is(err, errkind.NotFound) || errkind.Is(err, errkind.Internal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNextKey(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	old := h.key(t, "tenantreq")
	home := h.open(t)
	next, err := home.NextKey(enrol.Tenant, "tenantreq")
	if err != nil || same(next.PublicKey(), old) {
		t.Fatalf("NextKey: %v", err)
	}
	again, err := h.open(t).NextKey(enrol.Tenant, "tenantreq")
	if err != nil || !same(next.PublicKey(), again.PublicKey()) {
		t.Errorf("a second roll made another next key: %v", err)
	}
	if now := h.key(t, "tenantreq"); !same(now, old) {
		t.Error("the next key is in use too early")
	}
	if err := home.UseNext(enrol.Tenant, "tenantreq"); err != nil {
		t.Fatal(err)
	}
	if now := h.key(t, "tenantreq"); !same(now, next.PublicKey()) {
		t.Error("the next key is not in use")
	}
	if home.HasNext(enrol.Tenant, "tenantreq") {
		t.Error("the old key is still there")
	}
	if public, err := home.Public(enrol.Tenant); err != nil || len(public) != 1 {
		t.Errorf("Public = %v, %v", public, err)
	}
}

func TestDefaultDir(t *testing.T) {
	t.Parallel()
	env := map[string]string{"HOME": "/home/a"}
	get := func(name string) string { return env[name] }
	if got := enrol.DefaultDir(get, true); got != "/opt/tesserae/services" {
		t.Errorf("root: %s", got)
	}
	if got := enrol.DefaultDir(get, false); got != "/home/a/.tesserae/services" {
		t.Errorf("user: %s", got)
	}
	env["NFAST_SERVICES_HOME"] = "/x"
	if got := enrol.DefaultDir(get, true); got != "/x" {
		t.Errorf("chosen: %s", got)
	}
}
