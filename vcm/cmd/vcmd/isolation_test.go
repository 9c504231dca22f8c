package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/sandbox"
)

const otherNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

func allNamespaces() []string { return []string{"user", "mnt", "pid", "net", "ipc", "uts"} }

// isolate gives the next process namespaces, and as root a uid of its own.
func (r *rig) isolate() {
	t := r.t
	t.Helper()
	uid, gid := os.Getuid(), os.Getgid()
	r.attr = syscall.SysProcAttr{Cloneflags: otherNamespaces | unix.CLONE_NEWUSER, Credential: &syscall.Credential{NoSetGroups: true}}
	if uid == 0 {
		const own = 1_879_100_777
		uid, gid = own, own
		r.attr.GidMappingsEnableSetgroups = true
		r.attr.Credential = &syscall.Credential{}
		r.start.Isolation.DistinctUID = true
		r.giveData(own)
	}
	r.attr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
	r.attr.GidMappings = []syscall.SysProcIDMap{{HostID: gid, Size: 1}}
	r.start.Isolation.Namespaces = allNamespaces()
}

// giveData lets uid own the data directory and reach it by its path.
func (r *rig) giveData(uid int) {
	r.t.Helper()
	err := filepath.WalkDir(r.data, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for dir := filepath.Dir(r.data); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			r.t.Fatal(err)
		}
	}
}

func logControls(t *testing.T, ready vcmcontrol.Ready) {
	t.Helper()
	for _, c := range ready.Controls {
		t.Logf("%-16s %-9s %s | %s", c.Control, c.Got, c.Proof, c.Reason)
	}
}

func TestAVCMInNamespacesServesAndSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.isolate()
	r.start.Isolation.Floor = sandbox.Rootless
	p := r.launch()
	ready := p.mustBeReady()
	logControls(t, ready)
	r.mustDial(vcmcontrol.ServiceSSHAdmin, r.admin)
	r.serverCertificate()
	p.stop(vcmcontrol.Stop{Drain: 2000})
	r.launch().mustBeReadyAndStop() // its own files are still its own
}

func TestWithoutNamespacesTheLevelIsLandlock(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.launch()
	ready := p.mustBeReady()
	if ready.Level != sandbox.Landlock {
		logControls(t, ready)
		t.Errorf("level %s", ready.Level)
	}
	for _, c := range ready.Controls {
		if absent := strings.HasPrefix(c.Control, "ns-") || c.Control == "root"; absent != (c.Got == sandbox.Absent) && c.Control != "cgroup" && c.Control != "own-uid" {
			t.Errorf("without namespaces: %+v", c)
		}
	}
	p.stop(vcmcontrol.Stop{Drain: 2000})
}

// Each layer that the launcher leaves out is missed by its own line, and by no other.
func TestEachMissingNamespaceIsReported(t *testing.T) {
	t.Parallel()
	for flag, control := range map[uintptr]string{
		unix.CLONE_NEWNET: "ns-net", unix.CLONE_NEWIPC: "ns-ipc", unix.CLONE_NEWUTS: "ns-uts", unix.CLONE_NEWNS: "root", unix.CLONE_NEWPID: "ns-pid",
	} {
		t.Run(control, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.isolate()
			r.attr.Cloneflags &^= flag
			if flag == unix.CLONE_NEWNS {
				r.start.Isolation.Namespaces = []string{"user", "pid", "net", "ipc", "uts"}
			}
			p := r.launch()
			ready := p.mustBeReady()
			if ready.Level != sandbox.Landlock {
				t.Errorf("level %s", ready.Level)
			}
			for _, c := range ready.Controls {
				if c.Control == "cgroup" || c.Control == "own-uid" {
					continue
				}
				if (c.Got == sandbox.Enforced) == (c.Control == control) {
					t.Errorf("%+v", c)
				}
			}
			p.stop(vcmcontrol.Stop{Drain: 2000})
		})
	}
}

func TestBelowTheFloorNothingStarts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start.Isolation.Floor = sandbox.Rootless
	f := r.launch().mustFail()
	if f.Kind != "refused" || !f.Final || !strings.Contains(f.Reason, "ns-net") || !strings.Contains(f.Reason, "--isolation-floor") {
		t.Errorf("%+v", f)
	}
}

func TestAnUndeclaredDescriptorIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	leak, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	p := r.spawn(leak)
	if code := p.waitExit(); code != errkind.Integrity.ExitCode() || !strings.Contains(p.stderr.String(), "/dev/null instead of a listener") {
		t.Errorf("exit code %d, %s", code, p.stderr)
	}
	r.start.Listeners = r.start.Listeners[1:] // a listener too many is a leak, too
	if f := r.launch().mustFail(); f.Kind != "integrity" || !strings.Contains(f.Reason, "declared") {
		t.Errorf("%+v", f)
	}
}

// TestAsAnUnprivilegedUser runs the tests of this file and the life of a VCM
// again as nobody, where this run is root's.
func TestAsAnUnprivilegedUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Log("this whole run is unprivileged")
		return
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "vcmd-nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	self, err := os.Open("/proc/self/exe") // nobody cannot reach it by its path
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd := exec.CommandContext(t.Context(), fmt.Sprintf("/proc/self/fd/%d", self.Fd()), "-test.run", "Namespace|Floor|Undeclared|LifeOf")
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + dir, builtVCMD + "=" + vcmd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}
