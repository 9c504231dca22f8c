package enrol_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

// readerMark makes the test binary somebody who wants to use keys of a home.
const readerMark = "enrol-test-reader"

func TestMain(m *testing.M) {
	if os.Args[0] == readerMark {
		read(os.Args[1], os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// groups are those of the tests, by name: the first is that of whoever runs them.
func groups(name string) (int, error) {
	id, ok := map[string]int{"operators": os.Getgid(), "nfastadmin": os.Getgid() + 1, "strangers": os.Getgid() + 2}[name]
	if !ok {
		return 0, errors.New("unknown group")
	}
	return id, nil
}

func read(dir string, services []string) {
	home, err := enrol.Open(dir, enrol.Env{Getenv: func(string) string { return "" }, Group: groupsOf(dir)})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range services {
		key, err := home.Key(enrol.Platform, s)
		if err != nil {
			fmt.Printf("%s: %v\n", s, err)
			continue
		}
		fmt.Printf("%s: %s\n", s, ssh.FingerprintSHA256(key.PublicKey()))
	}
}

// groupsOf are the groups as the home's owner sees them; the reader's own number
// is another.
func groupsOf(dir string) func(string) (int, error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return groups
	}
	base := int(fi.Sys().(*syscall.Stat_t).Gid)
	return func(name string) (int, error) {
		id, err := groups(name)
		return id - os.Getgid() + base, err
	}
}

// sharing opens the host's home as root would, or as a user would.
func (h *host) sharing(t *testing.T, root bool) *enrol.Home {
	t.Helper()
	home, err := enrol.Open(h.dir, enrol.Env{
		Getenv:  func(name string) string { return h.env[name] },
		Machine: func(name string) (string, error) { return h.machine[name], nil },
		Root:    root, Group: groups,
	})
	if err != nil {
		t.Fatal(err)
	}
	return home
}

func access(t *testing.T, path string) (mode os.FileMode, group int) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode().Perm(), int(fi.Sys().(*syscall.Stat_t).Gid)
}

func TestGroups(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.env["NFAST_MONITOR_GROUP"], h.env["NFAST_SETUP_GROUP"] = "operators", "nowhere"
	home := h.sharing(t, false)
	folder := func(service string) string { return filepath.Join(h.dir, "client", service) }
	ensure := func(service string) {
		t.Helper()
		if _, _, err := home.EnsureKey(enrol.Platform, service); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := home.EnsureKey(enrol.Platform, "setup")
	if !errkind.Is(err, errkind.Invalid) || !strings.Contains(err.Error(), "NFAST_SETUP_GROUP: this host has no group nowhere; make it with 'groupadd nowhere'") {
		t.Errorf("%v", err)
	}
	ensure("monitor")
	ensure("updater")
	want := func(when, service string, dir, file os.FileMode) {
		t.Helper()
		for name, want := range map[string]os.FileMode{"": dir, "key": file, "protection.json": file} {
			mode, group := access(t, filepath.Join(folder(service), name))
			if mode != want || group != os.Getgid() {
				t.Errorf("%s: %s/%s has mode %04o and group %d", when, service, name, mode, group)
			}
		}
	}
	want("given to a group", "monitor", 0o750, 0o640)
	want("a user's own", "updater", 0o700, 0o600)
	if mode, _ := access(t, h.dir); mode != 0o711 {
		t.Errorf("the home has mode %04o", mode)
	}
	if p, err := home.PublicKey(enrol.Platform, "monitor"); err != nil || p.Group != "operators" {
		t.Errorf("%+v %v", p, err)
	}

	// The key of another group, of all, or of none.
	if err := os.Chmod(filepath.Join(folder("monitor"), "key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Key(enrol.Platform, "monitor"); !errkind.Is(err, errkind.Refused) || !strings.Contains(err.Error(), "accessible to others (mode 0644)") {
		t.Errorf("a key that all can read: %v", err)
	}
	if err := os.Chmod(filepath.Join(folder("updater"), "key"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := home.Key(enrol.Platform, "updater"); !errkind.Is(err, errkind.Refused) {
		t.Errorf("a key that was given to nobody: %v", err)
	}
	if err := os.Chmod(filepath.Join(folder("monitor"), "key"), 0o640); err != nil {
		t.Fatal(err)
	}

	// Enrolling again changes what the environment names, and nothing else.
	delete(h.env, "NFAST_MONITOR_GROUP")
	ensure("monitor")
	want("nothing said", "monitor", 0o750, 0o640)
	h.env["NFAST_MONITOR_GROUP"] = "root"
	ensure("monitor")
	mode, _ := access(t, filepath.Join(folder("monitor"), "key"))
	if p, err := home.PublicKey(enrol.Platform, "monitor"); err != nil || p.Group != "" || mode != 0o600 {
		t.Errorf("taken back: %+v %v, mode %04o", p, err, mode)
	}
	if _, err := home.Key(enrol.Platform, "monitor"); err != nil {
		t.Error(err)
	}
	h.env["NFAST_MONITOR_GROUP"] = "operators"
	ensure("monitor")
	want("given again", "monitor", 0o750, 0o640)
}

// Members of the group use root's keys, with the tools' own code; others do not.
func TestMembersUseRootsKeys(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("REDUCED: without root nobody else can use the keys; modes and groups are tested in TestGroups")
	}
	h := newHost(t)
	for dir := h.dir; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil { // of the test's own folders
			t.Fatal(err)
		}
	}
	h.env["NFAST_LAUNCHER_GROUP"], h.env["NFAST_SETUP_GROUP"], h.env["NFAST_SETUP_KEYPROT"] = "strangers", "nfastadmin", "KFG"
	home := h.sharing(t, true)
	services := []string{"monitor", "orchestrator", "launcher", "setup", "sshadmin"}
	keys := map[string]string{}
	for _, s := range services {
		key, _, err := home.EnsureKey(enrol.Platform, s)
		if err != nil {
			t.Fatal(err)
		}
		keys[s] = ssh.FingerprintSHA256(key.PublicKey())
	}
	// A copy of the test that another user may run.
	program := filepath.Join(h.dir, "reader")
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	as := func(group string) string {
		t.Helper()
		id, err := groups(group)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Args = append([]string{readerMark, h.dir}, services...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: uint32(id)}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	for group, may := range map[string][]string{"nfastadmin": {"monitor", "orchestrator"}, "strangers": {"launcher"}} {
		said := as(group)
		for _, s := range services {
			used := strings.Contains(said, s+": "+keys[s]+"\n")
			allowed := false
			for _, m := range may {
				allowed = allowed || m == s
			}
			if used != allowed {
				t.Errorf("%s: the key of %s was used: %v\n%s", group, s, used, said)
			}
		}
		// Given to a group, but its protection is root's alone.
		if group == "nfastadmin" && !strings.Contains(said, "setup: protection G: ") {
			t.Errorf("%s", said)
		}
	}
}
