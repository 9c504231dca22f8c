package lifecycle_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/etcdtest"
)

// The cluster's leader dies or falls silent under each command. The command takes
// as long as the election, and succeeds.
func TestLeaderIsLostUnderACommand(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, 3)
	r := binaries.New(t)
	ctx := t.Context()
	furnish(t, r, "--etcd-endpoints", cluster.Endpoints())
	request, err := r.Request(ctx, "wanted")
	if err != nil {
		t.Fatal(err)
	}
	dir, id := t.TempDir(), ""
	for _, c := range []struct {
		silent bool
		args   func() []string
	}{
		{false, func() []string { return []string{"create", "--request", request, "--outdir", dir, "one"} }},
		{true, func() []string { return []string{"start", id} }},
		{false, func() []string { return []string{"stop", "--yes", "--force", id} }},
		{true, func() []string { return []string{"delete", "--yes", "--force", id} }},
	} {
		leader := cluster.Leader()
		lose, back := cluster.Kill, cluster.Restart
		if c.silent {
			lose, back = cluster.Pause, cluster.Resume
		}
		lose(leader)
		args := c.args()
		began := time.Now()
		out, err := r.Try(ctx, rig.Provider, "vcmadmin", args...)
		if err != nil || out.Code != 0 {
			t.Fatalf("vcmadmin %v: exit code %d after %s (%v)\n%s", args, out.Code, time.Since(began), err, out.All)
		}
		t.Logf("%s took %s", args[0], time.Since(began).Round(time.Millisecond))
		back(leader)
		cluster.Await()
		if id == "" {
			files, err := filepath.Glob(filepath.Join(dir, "*.vcm"))
			if err != nil || len(files) != 1 {
				t.Fatalf("%v %v", files, err)
			}
			id = strings.TrimSuffix(filepath.Base(files[0]), ".vcm")
		}
	}
}
