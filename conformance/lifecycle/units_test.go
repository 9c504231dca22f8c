package lifecycle_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/etcdtest"
)

// second is another unit of the rig's provider and maker.
type second struct {
	esn  string
	orch *rig.Daemon
}

// anotherUnit makes a unit beside the rig's own, whose files have names with a 2.
func anotherUnit(t *testing.T, r *rig.Rig, flags ...string) second {
	t.Helper()
	ctx := t.Context()
	do := func(role rig.Role, tool string, args ...string) {
		t.Helper()
		if _, err := r.Run(ctx, role, tool, args...); err != nil {
			t.Fatal(err)
		}
	}
	do(rig.Maker, "hsmd", "init", "--state", r.Path("unit2"))
	do(rig.Maker, "vendor", "warrant", "--dir", r.Path("maker", "keys"), "--request", r.Path("unit2", "identity-request"), "--out", r.Mail("unit2.warrant"))
	do(rig.Maker, "hsmd", "warrant", "--state", r.Path("unit2"), "--maker-root", r.MakerRoot(), r.Mail("unit2.warrant"))
	socket, unit := r.Path("hsmd2.sock"), r.Path("platform2", "unit.json")
	if _, err := r.Start(rig.Provider, "hsmd", "run", "--state", r.Path("unit2"), "--socket", socket); err != nil {
		t.Fatal(err)
	}
	there := func(path string) func() bool {
		return func() bool { _, err := os.Stat(path); return err == nil }
	}
	if err := r.Await(ctx, "the second module", there(socket)); err != nil {
		t.Fatal(err)
	}
	orch, err := r.Start(rig.Provider, "orchestratord", append([]string{"run", "--state", r.Path("platform2"), "--hsm-socket", socket}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Await(ctx, "the second platform", there(unit)); err != nil {
		t.Fatal(err)
	}
	do(rig.Provider, "hsmadmin", "enroll", "--unit", unit)
	p, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	var u struct{ ESN string }
	if err := json.Unmarshal(p, &u); err != nil {
		t.Fatal(err)
	}
	return second{esn: u.ESN, orch: orch}
}

// furnish gives r a maker, a unit whose orchestrator has these options, and a
// provider.
func furnish(t *testing.T, r *rig.Rig, options ...string) (orch *rig.Daemon) {
	t.Helper()
	if err := r.Maker(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, orch, err := r.Unit(t.Context(), options...)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.EnrolProvider(t.Context()); err != nil {
		t.Fatal(err)
	}
	return orch
}

// Two units share a cluster, a host and its network. The provider's tools see the
// VCMs of both, select by ESN, and go on while one of them is away.
func TestUnitsBehindOneEtcd(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 3)
	r := binaries.New(t)
	ctx := t.Context()
	// The last --network counts: one network for both.
	shared := []string{"--etcd-endpoints", cluster.Endpoints(), "--network", r.Network()}
	furnish(t, r, shared...)
	first, err := r.ESN()
	if err != nil {
		t.Fatal(err)
	}
	other := anotherUnit(t, r, shared...)
	request, err := r.Request(ctx, "wanted")
	if err != nil {
		t.Fatal(err)
	}
	admin := func(want int, args ...string) string {
		t.Helper()
		out, err := r.Try(ctx, rig.Provider, "vcmadmin", args...)
		if err != nil || out.Code != want {
			t.Fatalf("vcmadmin %v: exit code %d, not %d (%v)\n%s", args, out.Code, want, err, out.All)
		}
		return out.All
	}
	contains := func(text string, want map[string]bool) {
		t.Helper()
		for piece, there := range want {
			if strings.Contains(text, piece) != there {
				t.Errorf("%q is there: %v\n%s", piece, !there, text)
			}
		}
	}
	admin(2, "create", "--request", request, "unknown-which")
	uuids := map[string]string{}
	for _, esn := range []string{first, other.esn} {
		dir := t.TempDir()
		admin(0, "create", "--request", request, "--outdir", dir, "--esn", strings.ToLower(esn), "on-"+esn)
		files, err := filepath.Glob(filepath.Join(dir, "*.vcm"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%v %v", files, err)
		}
		uuids[esn] = strings.TrimSuffix(filepath.Base(files[0]), ".vcm")
	}
	a, b := uuids[first], uuids[other.esn]
	both, onlyA, onlyB := map[string]bool{a: true, b: true}, map[string]bool{a: true, b: false}, map[string]bool{a: false, b: true}
	contains(admin(0, "start", a, b), both)
	for _, verb := range []string{"list", "show", "stats"} {
		contains(admin(0, verb), both)
		contains(admin(0, verb, "--esn", first), onlyA)
		contains(admin(0, verb, "--json", "--esn", other.esn), onlyB)
		admin(4, verb, "--esn", "0000-0000-0000")
	}
	contains(admin(0, "show", b), onlyB)
	admin(4, "show", "--esn", first, b)
	admin(4, "stop", "--esn", first, b)
	admin(4, "delete", "--yes", "--esn", other.esn, a)
	var listed []struct{ UUID, ESN, IPAddress string }
	if err := json.Unmarshal([]byte(strings.ReplaceAll(admin(0, "list", "--json"), "ip_address", "ipaddress")), &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed) != 2 || listed[0].IPAddress == listed[1].IPAddress || uuids[listed[0].ESN] != listed[0].UUID {
		t.Errorf("%+v", listed)
	}

	r.Kill(other.orch)
	contains(admin(0, "show", a), onlyA)
	contains(admin(5, "list", "--timeout", "3"), map[string]bool{a: true, b: false, "HSM " + other.esn: true})
	contains(admin(5, "stats", "--timeout", "3"), map[string]bool{a: true, b: false, "HSM " + other.esn: true})
	contains(admin(5, "show", "--timeout", "3", b), map[string]bool{"which may have VCM " + b: true})
	contains(admin(0, "list", "--esn", first), onlyA)
	if err := r.Restart(other.orch); err != nil {
		t.Fatal(err)
	}
	err = r.Await(ctx, "the VCM of the second unit", func() bool {
		out, err := r.Try(context.WithoutCancel(ctx), rig.Provider, "vcmadmin", "list", "--active")
		return err == nil && out.Code == 0 && strings.Contains(out.All, a) && strings.Contains(out.All, b)
	})
	if err != nil {
		t.Fatal(err)
	}
	contains(admin(0, "stop", "--yes", "--force", a, b), both)
	contains(admin(0, "delete", "--yes", "--force", a, b), both)
	contains(admin(0, "list"), map[string]bool{a: false, b: false})
}
