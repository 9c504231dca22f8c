// Package guides runs the guides in docs as their reader would: every command,
// in order, in a shell, against a platform started for it.
//
// # What a guide holds
//
// A fenced block "sh ROLE" is a terminal of that role: maker, provider, tenant,
// kmc, vending or customer. Each role has its own services home and its own
// shell variables, which last from block to block; all work in one folder, so
// that what one sends to another is at hand. Lines beginning with "$ " are
// commands; one that ends with a backslash goes on in the next line. A command
// has to exit with 0, or with N where it ends with "# exit N". The lines after
// it, up to the next command, are pieces of its output, in order: in each, "…"
// stands for any text, and a run of spaces for any other.
//
// In a block "sh ROLE daemon" each command is a daemon: it is started, and the
// guide goes on once the file named in "# until FILE" exists.
//
// Commands in any other kind of block are an error, so that nothing in a guide
// looks like a command that was never run.
package guides

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Command is one command of a guide.
type Command struct {
	Line   int // in the guide
	Role   string
	Daemon bool
	Text   string
	Exit   int      // the exit code it has to have
	Until  string   // of a daemon: the file that tells that it is ready
	Output []string // pieces of its output
}

// Block is a fenced block that is not a terminal.
type Block struct {
	Line int
	Info string
	Text string
}

// Guide is a page with its terminals.
type Guide struct {
	Commands []Command
	Blocks   []Block
}

var (
	exitMark  = regexp.MustCompile(`\s+# exit ([0-9]+)$`)
	untilMark = regexp.MustCompile(`\s+# until (\S+)$`)
)

func roles() map[string]bool {
	return map[string]bool{"maker": true, "provider": true, "tenant": true, "kmc": true, "vending": true, "customer": true}
}

// Parse reads a guide in Markdown.
func Parse(text string) (*Guide, error) {
	g := &Guide{}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		info, fenced := strings.CutPrefix(lines[i], "```")
		if !fenced {
			continue
		}
		start := i + 1
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		if i == len(lines) {
			return nil, fmt.Errorf("line %d: the block is not closed", start)
		}
		if err := g.add(info, lines[start:i], start+1); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// add takes one fenced block whose first line has the number at.
func (g *Guide) add(info string, lines []string, at int) error {
	words := strings.Fields(info)
	terminal := len(words) >= 2 && words[0] == "sh"
	if !terminal {
		for n, l := range lines {
			if strings.HasPrefix(l, "$ ") {
				return fmt.Errorf("line %d: a command outside a terminal; its block begins with ```%s, not with ```sh ROLE", at+n, info)
			}
		}
		g.Blocks = append(g.Blocks, Block{Line: at, Info: info, Text: strings.Join(lines, "\n") + "\n"})
		return nil
	}
	daemon := len(words) == 3 && words[2] == "daemon"
	if !roles()[words[1]] || len(words) > 2 && !daemon {
		return fmt.Errorf("line %d: %q names no role", at-1, info)
	}
	for n := 0; n < len(lines); n++ {
		text, ok := strings.CutPrefix(lines[n], "$ ")
		if !ok {
			return fmt.Errorf("line %d: output before any command", at+n)
		}
		c := Command{Line: at + n, Role: words[1], Daemon: daemon}
		for strings.HasSuffix(text, `\`) && n+1 < len(lines) {
			n++
			text = strings.TrimSuffix(text, `\`) + strings.TrimSpace(lines[n])
		}
		for n+1 < len(lines) && !strings.HasPrefix(lines[n+1], "$ ") {
			n++
			if piece := strings.TrimSpace(lines[n]); piece != "" {
				c.Output = append(c.Output, piece)
			}
		}
		if err := c.read(text); err != nil {
			return err
		}
		g.Commands = append(g.Commands, c)
	}
	return nil
}

// read takes the marks off a command's text.
func (c *Command) read(text string) error {
	if m := exitMark.FindStringSubmatch(text); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || n > 255 {
			return fmt.Errorf("line %d: exit code %s", c.Line, m[1])
		}
		c.Exit, text = n, strings.TrimSuffix(text, m[0])
	}
	if m := untilMark.FindStringSubmatch(text); m != nil {
		c.Until, text = m[1], strings.TrimSuffix(text, m[0])
	}
	if c.Daemon != (c.Until != "") {
		return fmt.Errorf("line %d: a daemon, and nothing else, has '# until FILE'", c.Line)
	}
	c.Text = text
	return nil
}

// Check compares what a command printed with what the guide shows.
func (c Command) Check(output string) error {
	rest := fold(output)
	for _, piece := range c.Output {
		parts := strings.Split(piece, "…")
		pattern := make([]string, len(parts))
		for i, p := range parts {
			pattern[i] = regexp.QuoteMeta(fold(p))
		}
		found := regexp.MustCompile(strings.Join(pattern, `[^\n]*`)).FindStringIndex(rest)
		if found == nil {
			return fmt.Errorf("%q is not in the rest of the output", piece)
		}
		rest = rest[found[1]:]
	}
	return nil
}

var spaces = regexp.MustCompile(`[ \t]+`)

// fold makes each run of spaces one.
func fold(s string) string { return spaces.ReplaceAllString(s, " ") }
