package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// example is one of the programs that the page for vending developers shows.
type example struct {
	name, source, generator string
	prepare                 func(ctx context.Context, w workspace) (command []string, env []string, err error)
}

func examples() []example {
	return []example{
		{"go", "go/vend.go", "", prepareGoExample},
		{"python", "python/vend.py", "py", preparePythonExample},
		{"java", "java/Vend.java", "java:generated_annotations=suppress", prepareJavaExample},
		{"php", "php/vend.php", "php", preparePHPExample},
		{"node", "node/vend.js", "js:node", prepareNodeExample},
		{"csharp", "csharp/Vend.cs", "netstd", prepareCSharpExample},
	}
}

// ExampleNames lists the languages of the page's programs.
func ExampleNames() []string {
	var names []string
	for _, e := range examples() {
		names = append(names, e.name)
	}
	return names
}

// ExampleSource is a program's file below the folder of the examples.
func ExampleSource(name string) string {
	for _, e := range examples() {
		if e.name == name {
			return e.source
		}
	}
	return ""
}

// printed is a line of an example's output: the digits, then what they are.
var printed = regexp.MustCompile(`^([0-9]{20}) (\S+) (\S+) (.*)$`)

// creditAmount is what the examples vend, in 0.1 kWh, and how they print it.
const (
	creditAmount = 102
	creditLine   = " 10.2 kWh"
)

// RunExample runs one program of the page for vending developers three times:
// it has to vend, to vend although the answer is lost on the way, and to say why
// it cannot. The steps are named vend, lostAnswer and refusal.
func (cfg Config) RunExample(ctx context.Context, dir, name string) ([]Step, error) {
	source := ExampleSource(name)
	if source == "" {
		return nil, errkind.Errorf(errkind.Invalid, "there is no example in %q; there are %s", name, strings.Join(ExampleNames(), ", "))
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	tmp, err := os.MkdirTemp("", "tesserae-example-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	program, err := cfg.buildExample(ctx, tmp, dir, name)
	if err != nil {
		return nil, err
	}
	proxy, err := loseOne(ctx, cfg.Address)
	if err != nil {
		return nil, err
	}
	defer proxy.Close()
	lost, err := program.vend(ctx, "lostAnswer", proxy.Address())
	if err != nil {
		return nil, err
	}
	if lost.OK && (!proxy.Lost() || !strings.Contains(lost.Detail, "connected again")) {
		lost.OK, lost.Detail = false, "no answer was lost, or the program did not ask again: "+lost.Detail
	}
	direct, err := program.vend(ctx, "vend", cfg.Address)
	if err != nil {
		return nil, err
	}
	refusal, err := program.refusal(ctx)
	return []Step{direct, lost, refusal}, err
}

// program is an example that is ready to run.
type program struct {
	cfg      Config
	name     string
	dir      string
	env, run []string
}

func (cfg Config) buildExample(ctx context.Context, tmp, dir, name string) (*program, error) {
	var e example
	for _, e = range examples() {
		if e.name == name {
			break
		}
	}
	source, err := filepath.Abs(filepath.Join(dir, e.source))
	if err != nil {
		return nil, err
	}
	w := workspace{dir: tmp, source: source, generated: filepath.Join(tmp, "gen"), nodeModules: cfg.NodeModules}
	if err := os.Mkdir(w.generated, 0o700); err != nil {
		return nil, err
	}
	if e.generator != "" {
		idl, err := filepath.Abs(cfg.IDL)
		if err != nil {
			return nil, err
		}
		compiler, err := needs("thrift", "thrift-compiler")
		if err != nil {
			return nil, err
		}
		if err := run(ctx, tmp, nil, compiler, "-out", w.generated, "-gen", e.generator, idl); err != nil {
			return nil, fmt.Errorf("generate the example's code: %w", err)
		}
	}
	command, env, err := e.prepare(ctx, w)
	return &program{cfg: cfg, name: name, dir: tmp, run: command, env: env}, err
}

// start runs the program against address as a user with this password.
func (p *program) start(ctx context.Context, address, passwordFile string) (stdout, stderr string, code int, err error) {
	m := p.cfg.Meters
	for _, file := range []*string{&p.cfg.CA, &passwordFile} {
		if *file, err = filepath.Abs(*file); err != nil {
			return "", "", 0, err
		}
	}
	args := append(slices.Clone(p.run), address, p.cfg.CA, p.cfg.User, passwordFile,
		m.DRN11, "11", strconv.Itoa(m.SGC), strconv.Itoa(m.KRN), strconv.Itoa(m.TI), strconv.Itoa(creditAmount))
	cmd := child(ctx, p.dir, p.env, args)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	if err != nil {
		return "", "", 0, fmt.Errorf("run the example: %w", err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode(), nil
}

func (p *program) vend(ctx context.Context, step, address string) (Step, error) {
	stdout, stderr, code, err := p.start(ctx, address, p.cfg.PasswordFile)
	s := Step{Language: p.name, Step: step}
	if err != nil {
		return s, err
	}
	line := printed.FindStringSubmatch(strings.TrimRight(stdout, "\r\n"))
	s.OK = code == 0 && line != nil && strings.HasSuffix(strings.TrimSpace(stdout), creditLine)
	s.Detail = strings.TrimSpace(stdout + stderr)
	if s.OK {
		s.Tokens = []string{line[1]}
	} else {
		s.Detail = fmt.Sprintf("exit code %d: %s", code, tail(s.Detail))
	}
	return s, nil
}

// refusal signs in with a wrong password.
func (p *program) refusal(ctx context.Context) (Step, error) {
	const want = "ESignin.Authentication: "
	wrong := filepath.Join(p.dir, "wrong-password")
	if err := os.WriteFile(wrong, []byte("Not-the-password-1\n"), 0o600); err != nil {
		return Step{}, err
	}
	stdout, stderr, code, err := p.start(ctx, p.cfg.Address, wrong)
	s := Step{Language: p.name, Step: "refusal", Detail: strings.TrimSpace(stderr)}
	if err != nil {
		return s, err
	}
	if s.OK = code == 3 && stdout == "" && strings.HasPrefix(stderr, want); !s.OK {
		s.Detail = fmt.Sprintf("exit code %d, not 3 and %q: %s", code, want, tail(stdout+stderr))
	}
	return s, nil
}

func prepareGoExample(ctx context.Context, w workspace) ([]string, []string, error) {
	tool, err := needs("go", "golang-go")
	if err != nil {
		return nil, nil, err
	}
	binary := filepath.Join(w.dir, "vend")
	cmd := exec.CommandContext(ctx, tool, "build", "-o", binary, ".")
	cmd.Dir = filepath.Dir(w.source) // part of this module
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("compile the Go example: %w: %s", err, tail(string(out)))
	}
	return []string{binary}, nil, nil
}

// What the walking clients get after their source is not for the examples.

func preparePythonExample(ctx context.Context, w workspace) ([]string, []string, error) {
	command, env, err := preparePython(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	return command[:2], env, nil
}

func prepareJavaExample(ctx context.Context, w workspace) ([]string, []string, error) {
	command, env, err := prepareJava(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	return command[:len(command)-1], env, nil
}

// preparePHPExample writes the autoloader that composer would.
func preparePHPExample(ctx context.Context, w workspace) ([]string, []string, error) {
	command, env, err := preparePHP(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	library, autoload := command[len(command)-2], filepath.Join(w.dir, "autoload.php")
	text := fmt.Sprintf(`<?php
error_reporting(E_ALL & ~E_DEPRECATED);
spl_autoload_register(function ($class) {
    $path = str_replace('\\', '/', $class) . '.php';
    $file = str_starts_with($path, 'Thrift/') ? %q . '/' . substr($path, 7) : %q . '/' . $path;
    if (is_file($file)) {
        require_once $file;
    }
});
`, library, w.generated)
	if err := os.WriteFile(autoload, []byte(text), 0o600); err != nil {
		return nil, nil, err
	}
	return []string{command[0], w.source}, append(env, "VEND_AUTOLOAD="+autoload), nil
}

func prepareNodeExample(ctx context.Context, w workspace) ([]string, []string, error) {
	command, env, err := prepareNode(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	return []string{command[0], w.source}, append(env, "VEND_GENERATED="+w.generated), nil
}
