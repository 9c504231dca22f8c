package guides_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
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

// TestEveryCommandIsInAGuide finds commands of the provider's and the tenant's
// tools that no guide runs.
func TestEveryCommandIsInAGuide(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	for _, page := range pages(t) {
		for _, c := range parse(t, page).Commands {
			fmt.Fprintln(&said, c.Text)
		}
	}
	for _, tool := range []string{"vcmadmin", "hsmadmin", "ptokenadmin"} {
		commands := leaves(t, tool)
		if len(commands) < 8 {
			t.Errorf("%s --help names only %d commands", tool, len(commands))
		}
		for _, want := range commands {
			if !regexp.MustCompile(`(?m)(^|[ (])` + regexp.QuoteMeta(want) + `( |\)|$)`).MatchString(said.String()) {
				t.Errorf("no guide runs %q; put it into the provider's or the tenant's guide", want)
			}
		}
	}
}

// leaves are the commands below a command that have none below them, as its
// --help names them.
func leaves(t *testing.T, words ...string) []string {
	t.Helper()
	args := append(slices.Clone(words[1:]), "--help")
	out, err := exec.CommandContext(t.Context(), filepath.Join(binaries.Dir(t), words[0]), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v --help: %v\n%s", words, err, out)
	}
	_, below, found := strings.Cut(string(out), "\nCOMMANDS:\n")
	if !found {
		return []string{strings.Join(words, " ")}
	}
	below, _, _ = strings.Cut(below, "\n\n")
	var all []string
	for line := range strings.Lines(below) {
		if verb := strings.Trim(strings.Fields(line)[0], ","); verb != "help" {
			all = append(all, leaves(t, append(slices.Clone(words), verb)...)...)
		}
	}
	return all
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
