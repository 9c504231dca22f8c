// Package sptools_test runs the provider's and the tenant's tools as they are
// built, against a unit on loopback: one script a subject.
package sptools_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tesserae-hsm/tesserae/conformance/scripttest"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/sp-tools/hsmadmin"
	"github.com/tesserae-hsm/tesserae/sp-tools/vcmadmin"
	"github.com/tesserae-hsm/tesserae/tenant/fakeunit"
	"github.com/tesserae-hsm/tesserae/tenant/ptokenadmin"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"vcmadmin":    func() { console.Main(vcmadmin.App) },
		"hsmadmin":    func() { console.Main(hsmadmin.App) },
		"ptokenadmin": func() { console.Main(ptokenadmin.App) },
	})
}

const esn = "1A23-BC45-6789"

// TestScripts gives each script a unit of its own in $UNIT, a second one in
// $UNIT2, the maker's root in $ROOT, another maker's in $ROGUE, and licences.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(env *testscript.Env) error { return setUp(t, env) },
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": scripttest.Exits, "keep": keep, "await": await, "plain": plain},
		UpdateScripts:       *update,
	})
}

func setUp(t *testing.T, env *testscript.Env) error {
	first, second, rogue := filepath.Join(env.WorkDir, "unit1"), filepath.Join(env.WorkDir, "unit2"), filepath.Join(env.WorkDir, "rogue")
	for _, dir := range []string{first, second, rogue, filepath.Join(env.WorkDir, "out")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	root := fakeunit.MakerRoot(t, first)
	u := fakeunit.New(t, first, esn, root)
	u2 := fakeunit.New(t, second, "2B34-CD56-7890", root)
	fakeunit.MakerRoot(t, rogue)
	for name, l := range map[string]licensing.Licence{
		"active.lic":  {Type: licensing.MaxActiveVCMs, ESN: esn, Active: 10, Serial: "L1", Issued: time.Unix(1_790_000_000, 0).UTC()},
		"foreign.lic": {Type: licensing.MaxActiveVCMs, ESN: "9999-9999-9999", Active: 10, Serial: "L2", Issued: time.Unix(1_790_000_000, 0).UTC()},
	} {
		file, err := l.Sign(root)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), file, 0o600); err != nil {
			return err
		}
	}
	env.Setenv("ESN", esn)
	env.Setenv("UNIT", u.UnitFile())
	env.Setenv("UNIT2", u2.UnitFile())
	env.Setenv("ROOT", filepath.Join(first, "maker-root.pub"))
	env.Setenv("ROGUE", filepath.Join(rogue, "maker-root.pub"))
	env.Setenv("NFAST_SERVICES_HOME", filepath.Join(env.WorkDir, "home"))
	env.Setenv("NFAST_KEYPROT", "KFG") // the same on every machine
	return nil
}

var update = flag.Bool("update", false, "write the golden texts of the scripts anew; review them as text")

// varying is what differs from run to run in a text, and what stands for it.
var varying = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`AAAAC3NzaC1lZDI1NTE5[A-Za-z0-9+/]{48}`), "KEY"},
	{regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}`), "SHA256:PRINT"},
	{regexp.MustCompile(`20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`(127\.0\.0\.[0-9]+):[0-9]+`), "$1:PORT"},
	{regexp.MustCompile(`AAAAIHNzaC1lZDI1NTE5LWNlcnQ[A-Za-z0-9+/=]+`), "CERTIFICATE"},
	{regexp.MustCompile(`\b[A-Za-z0-9+/]{43}=`), "BYTES"},
}

// plain STREAM FILE writes what the last command printed to FILE, without what
// differs from run to run.
func plain(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: plain stdout|stderr FILE")
	}
	text := strings.ReplaceAll(ts.ReadFile(args[0]), ts.Getenv("WORK"), "$WORK")
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.name)
	}
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines { // tables are padded
		if body, ended := strings.CutSuffix(line, "\n"); ended {
			lines[i] = strings.TrimRight(body, " ") + "\n"
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(lines, "")), 0o600))
}

// keep NAME PATTERN puts the one file that matches into $NAME, and its name
// without the ending into $NAME_ID.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep NAME PATTERN")
	}
	files, err := filepath.Glob(ts.MkAbs(args[1]))
	if err != nil || len(files) != 1 {
		ts.Fatalf("keep: %d files match %s: %v", len(files), args[1], err)
	}
	base := filepath.Base(files[0])
	ts.Setenv(args[0], files[0])
	ts.Setenv(args[0]+"_ID", base[:len(base)-len(filepath.Ext(base))])
}

// await PATTERN FILE waits until a program in the background has written it.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await PATTERN FILE")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(ts.MkAbs(args[1]))
		if err == nil && pattern.Match(text) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("await: no %s in %s (%v):\n%s", args[0], args[1], err, text)
		}
	}
}
