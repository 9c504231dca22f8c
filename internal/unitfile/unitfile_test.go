package unitfile_test

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
)

func unit(t *testing.T) unitfile.Unit {
	t.Helper()
	return unitfile.Unit{
		ESN: "1A23-BC45-6789", ModuleID: "00000100", UnitKey: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshrpctest.Key(t).PublicKey()))),
		Services: []unitfile.Service{{Name: "sshadmin", Address: "127.0.0.1:2201"}, {Name: "setup", Address: "[::1]:2202"}},
		Written:  time.Unix(1_800_000_000, 0).UTC(),
	}
}

func TestWriteAndRead(t *testing.T) {
	t.Parallel()
	path, want := filepath.Join(t.TempDir(), unitfile.Name), unit(t)
	if err := unitfile.Write(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := unitfile.Read(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v", got, err)
	}
	if a, err := got.Service("setup"); err != nil || a != "[::1]:2202" {
		t.Errorf("setup at %q, %v", a, err)
	}
	if _, err := got.Service("launcher"); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("launcher: %v", err)
	}
	if _, err := got.Key(); err != nil {
		t.Error(err)
	}
	if _, err := unitfile.Read(path + "x"); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(u *unitfile.Unit){
		"no ESN":             func(u *unitfile.Unit) { u.ESN = "" },
		"no unit key":        func(u *unitfile.Unit) { u.UnitKey = "" },
		"two keys":           func(u *unitfile.Unit) { u.UnitKey += "\n" + u.UnitKey },
		"service twice":      func(u *unitfile.Unit) { u.Services[1].Name = "sshadmin" },
		"service without":    func(u *unitfile.Unit) { u.Services[1].Name = "" },
		"address by name":    func(u *unitfile.Unit) { u.Services[0].Address = "localhost:1" },
		"address is a shell": func(u *unitfile.Unit) { u.Services[0].Address = "$(reboot):1" },
	} {
		u := unit(t)
		change(&u)
		path := filepath.Join(t.TempDir(), "f")
		if err := unitfile.Write(path, u); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, text := range map[string]string{
		"nothing":       "",
		"no JSON":       "hello",
		"unknown field": `{"esn":"x","more":1}`,
		"two objects":   `{"esn":"x"}{}`,
		"a list":        `[]`,
	} {
		if _, err := unitfile.Parse([]byte(text)); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"esn":"1A23-BC45-6789","moduleId":"1","unitKey":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINNwMHM8lLcve+HMdKmjaanRnkdOE0Sm3ZUxkjv5LTgg","warrant":"","services":[{"name":"a","address":"127.0.0.1:1"}],"written":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		u, err := unitfile.Parse(text)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "f")
		if err := unitfile.Write(path, u); err != nil {
			t.Fatalf("accepted %q but does not write it: %v", text, err)
		}
		if u.ESN == "" || bytes.Contains([]byte(u.UnitKey), []byte("\x00")) {
			t.Fatalf("accepted %q", text)
		}
	})
}
