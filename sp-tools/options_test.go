package sptools_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/sp-tools/hsmadmin"
	"github.com/tesserae-hsm/tesserae/sp-tools/vcmadmin"
)

// manual has the options of every command as the nShield Service Provider User
// Guide names them: sections 3.4.1, 4.10.1.16 to 4.10.1.18, and what our commands
// take besides.
const manual = `
vcmadmin create            --request --timeout --esn --verbose --json --serial-cardreader --autostart --ip-address --features --outdir
vcmadmin start             --esn --timeout --verbose --json --request
vcmadmin stop              --esn --timeout --force --verbose --json --yes
vcmadmin list              --esn --timeout --verbose --json --active --watch
vcmadmin show              --esn --timeout --verbose --json --isolation --outdir --force
vcmadmin delete            --esn --timeout --verbose --json --force --yes
vcmadmin stats             --esn --timeout --verbose --json --uuid
vcmadmin properties set    --request --esn --timeout --verbose --json
vcmadmin properties list   --esn --timeout --verbose --json
hsmadmin vcm create        --request-file --request-validity --restrict-startup --autostart --serial-cardreader --features --name --verbose --json --force
hsmadmin vcm start         --request-file --request-validity --uuid --verbose --json --force --config --maker-root
hsmadmin vcm enroll        --config --no-service-restart --verbose --json --timeout --maker-root
hsmadmin vcm unenroll      --no-service-restart --verbose
hsmadmin vcm setproperties --request-file --request-validity --uuid --restrict-startup --no-restrict-startup --autostart --no-autostart --serial-cardreader --no-serial-cardreader --features --name --verbose --json --force --config --ip-address --new-request-key
hsmadmin vcm inspect-request --verify --key-file --verbose --json
hsmadmin vcm info          --timeout --uuid --json --verbose
hsmadmin vcm getenvstats   --timeout --uuid --json --verbose
hsmadmin vcm single-setup  --timeout --esn --json --name --verbose
hsmadmin vcm logs export   --timeout --uuid --json --outdir --verbose --expire --saved
hsmadmin vcm logs expire   --timeout --uuid --json --seq --verbose
hsmadmin vcm logs getkey   --timeout --uuid --json --out --verbose
hsmadmin fet               --timeout --verbose --esn --json
hsmadmin setnetwork default    --timeout --verbose --esn
hsmadmin setnetwork ipv4static --address --gateway --timeout --verbose --esn
hsmadmin setnetwork ipv6static --address --gateway --timeout --verbose --esn
`

// Every option of the manual exists under its name, and a script or a guide uses
// it with its command.
func TestOptionsOfTheManual(t *testing.T) {
	t.Parallel()
	env := console.System()
	used := commandLines(t)
	for line := range strings.Lines(strings.TrimSpace(manual)) {
		before, options, _ := strings.Cut(line, "--")
		words := strings.Fields(before)
		tool := vcmadmin.App(env)
		if words[0] == "hsmadmin" {
			tool = hsmadmin.App(env)
		}
		c := find(tool.Commands, words[1:])
		if c == nil {
			t.Errorf("there is no command %s", strings.Join(words, " "))
			continue
		}
		have := map[string]bool{}
		for _, f := range c.Flags {
			for _, name := range f.Names() {
				have[name] = true
			}
		}
		for _, option := range strings.Fields("--" + options) {
			name := strings.TrimPrefix(option, "--")
			if !have[name] {
				t.Errorf("%s has no %s", strings.Join(words, " "), option)
			}
			pattern := regexp.MustCompile(`\b` + strings.Join(words, ` `) + ` ([^\n;&]* )?` + option + `\b`)
			if !pattern.MatchString(used) {
				t.Errorf("no script and no guide runs %s with %s", strings.Join(words, " "), option)
			}
		}
	}
}

func find(commands []*cli.Command, path []string) *cli.Command {
	for _, c := range commands {
		switch {
		case c.Name != path[0]:
		case len(path) == 1:
			return c
		default:
			return find(c.Subcommands, path[1:])
		}
	}
	return nil
}

// commandLines are the lines of all scripts and guides, each continued one as one.
func commandLines(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, pattern := range []string{"testdata/script/*.txtar", "../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(strings.ReplaceAll(string(text), "\\\n", " "))
		}
	}
	return all.String()
}
