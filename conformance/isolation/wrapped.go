package isolation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// wrapped is a folder of the programs in bin whose orchestrator does something
// before it begins: the words of how are for Before.
func (s *Suite) wrapped(bin, name string, how ...string) (string, error) {
	dir := filepath.Join(s.Dir, "bin-"+name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(bin)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		path := filepath.Join(bin, e.Name())
		if e.Name() == "orchestratord" {
			script := append([]string{fmt.Sprintf("#!%s/isolation %s", s.Bin, beforeVerb)}, append(how, path, "")...)
			err = os.WriteFile(filepath.Join(dir, e.Name()), []byte(strings.Join(script, "\n")), 0o755)
		} else {
			err = os.Symlink(path, filepath.Join(dir, e.Name()))
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return dir, nil
}

// beforeVerb is the suite's program as the interpreter of a wrapped one.
const beforeVerb = "before"

// Before is the program isolation as the interpreter of a wrapped program: the
// lines of the script say what to do, and end with the program.
func Before(args []string) error {
	if len(args) == 0 {
		return errors.New("before SCRIPT [ARGUMENT...]")
	}
	script, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(script)), "\n")
	if len(lines) != 4 {
		return fmt.Errorf("%s: a script has four lines: the interpreter, what to do, with what, the program", args[0])
	}
	program := append([]string{lines[3]}, args[1:]...)
	switch lines[1] {
	case "deny":
		return Deny(lines[2], program)
	case "leak":
		return Leak(lines[2], program)
	case "enter":
		return Enter(lines[2], program)
	case "enter-below":
		return EnterBelow(lines[2], program)
	default:
		return fmt.Errorf("%s: nothing is called %q", args[0], lines[1])
	}
}

// become is the program from here on.
func become(program []string) error { return unix.Exec(program[0], program, os.Environ()) }
