package guides_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/guides"
	"github.com/tesserae-hsm/tesserae/conformance/interop"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
)

const docs = "../../docs"

var binaries rigtest.Binaries

func TestMain(m *testing.M) { os.Exit(binaries.Main(m)) }

// TestGuides runs every command of every guide, each guide on a platform of its
// own.
func TestGuides(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		g := parse(t, page)
		if len(g.Commands) == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			r := binaries.New(t)
			var last string
			x := guides.NewRunner(r, binaries.Dir(t), func(format string, args ...any) { last += fmt.Sprintf(format, args...) + "\n" })
			if path := os.Getenv("GUIDE_TRANSCRIPT"); path != "" {
				defer func() { _ = os.WriteFile(filepath.Join(path, filepath.Base(page)+".txt"), []byte(last), 0o600) }()
			}
			if err := x.Run(t.Context(), g); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		})
	}
}

// TestEveryCommandIsInAGuide finds commands of the tools that no guide runs.
func TestEveryCommandIsInAGuide(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	for _, page := range pages(t) {
		for _, c := range parse(t, page).Commands {
			fmt.Fprintln(&said, c.Text)
		}
	}
	for _, want := range commands() {
		if !regexp.MustCompile(`(?m)(^|[ (])` + regexp.QuoteMeta(want) + `( |\)|$)`).MatchString(said.String()) {
			t.Errorf("no guide runs %q", want)
		}
	}
}

// commands are those of the provider's and the tenant's manuals.
func commands() []string {
	var out []string
	for tool, verbs := range map[string]string{
		"vcmadmin":            "create start stop list show delete stats",
		"vcmadmin properties": "set list",
		"hsmadmin":            "enroll status info getenvstats gettime settime fet reset factorystate",
		"hsmadmin keys":       "show roll backup restore migrate remote-set remote-remove",
		"hsmadmin setnetwork": "default ipv4static ipv6static",
		"hsmadmin logs":       "export expire getkey verify",
		"hsmadmin vcm":        "create start enroll unenroll setproperties use-request-key inspect-request info getenvstats single-setup",
		"hsmadmin vcm logs":   "export expire getkey verify",
		"ptokenadmin":         "status",
		"ptokenadmin user":    "create list show set-password change unlock delete roles",
		"ptokenadmin pref":    "list set",
		"ptokenadmin kmc":     "upload-key list generate-request fetch-request upload-klf load-all end-session delete-slot",
		"ptokenadmin vk":      "list show load delete",
		"ptokenadmin license": "load",
		"ptokenadmin sm":      "status public-key",
		"ptokenadmin tls":     "certificate generate import",
		"ptokenadmin token":   "credit mse kct test verify fetch",
	} {
		for _, verb := range strings.Fields(verbs) {
			out = append(out, tool+" "+verb)
		}
	}
	slices.Sort(out)
	return out
}

var update = flag.Bool("update", false, "put the example programs' files into the vending developer's page")

// TestExamplesAreTheirFiles holds the programs of the vending developer's page
// against the files that make interop runs.
func TestExamplesAreTheirFiles(t *testing.T) {
	t.Parallel()
	page := filepath.Join(docs, "vending-developer.md")
	for _, name := range interop.ExampleNames() {
		source, err := os.ReadFile(filepath.Join(docs, "examples", interop.ExampleSource(name)))
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(parse(t, page).Blocks, func(b guides.Block) bool { return b.Info == name })
		if at < 0 {
			t.Errorf("the page has no %s block", name)
			continue
		}
		shown := parse(t, page).Blocks[at].Text
		if shown == string(source) {
			continue
		}
		if !*update {
			t.Errorf("the page's %s block is not %s; run this test with -update", name, interop.ExampleSource(name))
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(page, []byte(strings.Replace(string(text), shown, string(source), 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLinks follows every relative link of every page.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	for _, page := range append(pages(t), "../../README.md", "../../SECURITY.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: link %s: %v", page, m[1], err)
			}
		}
	}
}

func pages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(docs, "*.md"))
	if err != nil || len(found) < 4 {
		t.Fatalf("%d pages in %s: %v", len(found), docs, err)
	}
	return found
}

func parse(t *testing.T, page string) *guides.Guide {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	g, err := guides.Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", page, err)
	}
	return g
}
