// Package architecture holds the rules about which package may know which, as
// tests: a rule that is not checked is a wish.
package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/build"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tesserae-hsm/tesserae"

// rule: packages under from must not depend on packages under any of mustNot.
type rule struct {
	from    string
	mustNot []string
	except  []string // packages under from that the rule does not bind
	why     string
}

var rules = []rule{
	{from: "orchestrator", mustNot: []string{"vcm", "hsm/tsm", "hsm/sts"}, why: "the orchestrator must not be able to hold keys"},
	{from: "vcm", mustNot: []string{"orchestrator", "go.etcd.io/etcd"}, why: "a VCM is another process and another tenant, and has no coordination store"},
	{from: "tenant", mustNot: []string{"orchestrator", "vcm", "hsm/tsm", "go.etcd.io/etcd"}, why: "the tenant's tools ship without the emulator and the platform"},
	{from: "sp-tools", mustNot: []string{"orchestrator", "vcm", "hsm/tsm", "go.etcd.io/etcd"}, why: "the provider's tools speak to services, they do not contain them"},
	{from: "hsm", mustNot: []string{"orchestrator", "vcm", "go.etcd.io/etcd"}, why: "the module knows neither its host nor its tenants"},
	{from: "internal", mustNot: []string{"orchestrator", "vcm", "tenant", "sp-tools", "go.etcd.io/etcd"}, why: "shared ground depends on nobody's room"},
}

// blackBox lists what conformance may know of the product: oracles, the generated
// code of public interfaces, and the language of the unit's socket, which a
// provider speaks who has written an orchestrator of his own.
var blackBox = []string{
	"hsm/sts", "hsm/keyload", "tenant/request", "internal/auditlog", "internal/errkind", "internal/clock",
	"internal/console", "internal/atomicfile", "internal/armor", "internal/api/gen", "vcm/prismtoken/gen", "hsm/hsmapi",
}

type listed struct {
	ImportPath string
	Deps       []string
	Imports    []string
	Doc        string
	Name       string
	GoFiles    []string
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Deps,Imports,Doc,Name,GoFiles", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func under(pkg, prefix string) bool {
	if !strings.Contains(prefix, ".") {
		prefix = path.Join(module, prefix)
	}
	return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}

func TestImportRules(t *testing.T) {
	t.Parallel()
	pkgs := list(t)
	for _, r := range rules {
		bound := 0
		for _, p := range pkgs {
			if !under(p.ImportPath, r.from) || slices.ContainsFunc(r.except, func(e string) bool { return under(p.ImportPath, e) }) {
				continue
			}
			bound++
			for _, dep := range p.Deps {
				for _, bad := range r.mustNot {
					if under(dep, bad) {
						t.Errorf("%s depends on %s: %s", p.ImportPath, dep, r.why)
					}
				}
			}
		}
		if bound == 0 {
			t.Errorf("no package under %s: the rule guards nothing", r.from)
		}
	}
}

func TestSTSUsesTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if p.ImportPath != path.Join(module, "hsm/sts") {
			continue
		}
		for _, dep := range p.Imports {
			if pkg, err := build.Import(dep, "", build.FindOnly); err != nil || !pkg.Goroot {
				t.Errorf("hsm/sts imports %s", dep)
			}
		}
		return
	}
	t.Error("hsm/sts not found")
}

func TestConformanceIsABlackBox(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if !under(p.ImportPath, "conformance") {
			continue
		}
		for _, dep := range p.Imports {
			if !under(dep, "") || under(dep, "conformance") {
				continue
			}
			if !slices.ContainsFunc(blackBox, func(ok string) bool { return under(dep, ok) }) {
				t.Errorf("%s imports %s: conformance sees the product from outside", p.ImportPath, dep)
			}
		}
	}
}

func TestOnlyTheOrchestratorLinksEtcd(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if under(p.ImportPath, "orchestrator") {
			continue
		}
		for _, dep := range p.Deps {
			if under(dep, "go.etcd.io/etcd") {
				t.Errorf("%s links %s", p.ImportPath, dep)
				break
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 || strings.Contains(p.ImportPath, "/gen/") {
			continue
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		for _, bad := range []string{"util", "utils", "common", "manager", "helpers", "misc"} {
			if p.Name == bad {
				t.Errorf("%s: a package is named for its subject, not %q", p.ImportPath, bad)
			}
		}
	}
}
