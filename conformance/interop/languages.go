package interop

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

//go:embed clients
var clients embed.FS

// language is one Thrift library and what it takes to run a client with it.
type language struct {
	name string
	// source is the client in clients/.
	source string
	// generator is the Thrift compiler's -gen option.
	generator string
	// prepare finds what is needed and returns the command to run; it may compile.
	prepare func(ctx context.Context, w workspace) (command []string, env []string, err error)
}

// workspace is the temporary folder of one run.
type workspace struct {
	dir, source, generated, plan, nodeModules string
}

func languages() []language {
	return []language{
		{"python", "walk.py", "py", preparePython},
		{"java", "Walk.java", "java:generated_annotations=suppress", prepareJava},
		{"php", "walk.php", "php", preparePHP},
		{"node", "walk.js", "js:node", prepareNode},
	}
}

func languageNames() []string {
	var names []string
	for _, l := range languages() {
		names = append(names, l.name)
	}
	return names
}

// walk generates a client's code, runs it and reads its steps.
func (cfg Config) walk(ctx context.Context, name string) ([]Step, error) {
	all := languages()
	l := all[slices.IndexFunc(all, func(l language) bool { return l.name == name })]
	dir, err := os.MkdirTemp("", "tesserae-interop-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	w := workspace{
		dir: dir, source: filepath.Join(dir, l.source), generated: filepath.Join(dir, "gen"),
		plan: filepath.Join(dir, "plan"), nodeModules: cfg.NodeModules,
	}
	if err := cfg.fill(w, l); err != nil {
		return nil, err
	}
	compiler, err := needs("thrift", "thrift-compiler")
	if err != nil {
		return nil, err
	}
	if err := run(ctx, dir, nil, compiler, "-out", w.generated, "-gen", l.generator, filepath.Join(dir, "prismtoken1-TokenApi.thrift")); err != nil {
		return nil, fmt.Errorf("generate the client's code: %w", err)
	}
	command, env, err := l.prepare(ctx, w)
	if err != nil {
		return nil, err
	}
	cmd := child(ctx, dir, env, command)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runErr := cmd.Run()
	steps, err := readSteps(stdout.Bytes())
	if err != nil {
		return steps, fmt.Errorf("%w; the client says: %s", err, tail(stderr.String()))
	}
	if runErr != nil && !slices.ContainsFunc(steps, func(s Step) bool { return !s.OK }) {
		return steps, fmt.Errorf("the client ended with %w: %s", runErr, tail(stderr.String()))
	}
	return steps, complete(steps)
}

// fill writes what the client reads into the workspace.
func (cfg Config) fill(w workspace, l language) error {
	source, err := clients.ReadFile("clients/" + l.source)
	if err != nil {
		return err
	}
	idl, err := os.ReadFile(cfg.IDL)
	if err != nil {
		return errkind.Errorf(errkind.Invalid, "read the interface definition: %w", err)
	}
	host, port, err := net.SplitHostPort(cfg.Address)
	if err != nil {
		return errkind.Errorf(errkind.Invalid, "address %q is not host:port", cfg.Address)
	}
	ca, err := filepath.Abs(cfg.CA)
	if err != nil {
		return err
	}
	password, err := filepath.Abs(cfg.PasswordFile)
	if err != nil {
		return err
	}
	if err := os.Mkdir(w.generated, 0o700); err != nil {
		return err
	}
	m := cfg.Meters
	plan := fmt.Sprintf("host=%s\nport=%s\nca=%s\nuser=%s\npasswordFile=%s\ndrn11=%s\ndrn07=%s\nsgc=%d\nkrn=%d\nti=%d\nken=%d\ntoSgc=%d\ntoKrn=%d\ntoTi=%d\n",
		host, port, ca, cfg.User, password, m.DRN11, m.DRN07, m.SGC, m.KRN, m.TI, m.KEN, m.ToSGC, m.ToKRN, m.ToTI)
	for path, content := range map[string][]byte{
		w.source: source, w.plan: []byte(plan), filepath.Join(w.dir, "prismtoken1-TokenApi.thrift"): idl,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func readSteps(p []byte) ([]Step, error) {
	var steps []Step
	lines := bufio.NewScanner(bytes.NewReader(p))
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		var s Step
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return steps, fmt.Errorf("the client printed %q, which is no step", lines.Text())
		}
		steps = append(steps, s)
	}
	return steps, lines.Err()
}

// complete says whether every step was walked, in order.
func complete(steps []Step) error {
	var names []string
	for _, s := range steps {
		names = append(names, s.Step)
	}
	if !slices.Equal(names, Steps()) {
		return fmt.Errorf("the client walked %v, not %v", names, Steps())
	}
	return nil
}

// needs finds a program, or names the Debian package that has it.
func needs(program, pkg string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", missing(program, pkg)
	}
	return path, nil
}

func missing(what, pkg string) error {
	return errkind.Errorf(errkind.Unavailable, "%s is missing: install %s, or do not ask for this language", what, pkg)
}

func preparePython(ctx context.Context, w workspace) ([]string, []string, error) {
	// The distribution's interpreter first: others do not see its packages.
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if run(ctx, w.dir, nil, python, "-c", "import thrift") == nil {
			return []string{python, w.source, w.plan}, []string{"PYTHONPATH=" + w.generated, "PYTHONDONTWRITEBYTECODE=1"}, nil
		}
	}
	return nil, nil, missing("a Python 3 with the module thrift", "python3-thrift")
}

func prepareJava(ctx context.Context, w workspace) ([]string, []string, error) {
	javac, err := needs("javac", "default-jdk-headless")
	if err != nil {
		return nil, nil, err
	}
	java, err := needs("java", "default-jdk-headless")
	if err != nil {
		return nil, nil, err
	}
	const jars = "/usr/share/java/"
	library, found := firstFile(jars+"libthrift.jar", jars+"thrift.jar")
	if !found {
		return nil, nil, missing("the Java library of Thrift", "libthrift-java")
	}
	logging, found := firstFile(jars + "slf4j-api.jar")
	if !found {
		return nil, nil, missing("slf4j, which Thrift's Java library needs", "libslf4j-java")
	}
	classpath := strings.Join([]string{filepath.Join(w.dir, "classes"), library, logging, jars + "slf4j-nop.jar"}, ":")
	sources, err := filepath.Glob(filepath.Join(w.generated, "prismtoken1", "*.java"))
	if err != nil {
		return nil, nil, err
	}
	args := append([]string{"-nowarn", "-encoding", "UTF-8", "-d", filepath.Join(w.dir, "classes"), "-cp", classpath, w.source}, sources...)
	if err := run(ctx, w.dir, nil, javac, args...); err != nil {
		return nil, nil, fmt.Errorf("compile the Java client: %w", err)
	}
	class := strings.TrimSuffix(filepath.Base(w.source), ".java")
	return []string{java, "-XX:TieredStopAtLevel=1", "-cp", classpath, class, w.plan}, nil, nil
}

func preparePHP(_ context.Context, w workspace) ([]string, []string, error) {
	php, err := needs("php", "php-cli")
	if err != nil {
		return nil, nil, err
	}
	library, found := firstFile("/usr/share/php/Thrift/Transport/TFramedTransport.php", "/usr/lib/php/Transport/TFramedTransport.php")
	if !found {
		return nil, nil, missing("the PHP library of Thrift", "php-thrift")
	}
	return []string{php, w.source, w.plan, filepath.Dir(filepath.Dir(library)), w.generated}, nil, nil
}

func prepareNode(ctx context.Context, w workspace) ([]string, []string, error) {
	node, err := needs("node", "nodejs")
	if err != nil {
		return nil, nil, err
	}
	var env []string
	if w.nodeModules != "" {
		modules, err := filepath.Abs(w.nodeModules)
		if err != nil {
			return nil, nil, err
		}
		env = []string{"NODE_PATH=" + modules}
	}
	if run(ctx, w.dir, env, node, "-e", "require('thrift')") != nil {
		return nil, nil, errkind.Errorf(errkind.Unavailable, "the npm package thrift is missing: 'npm install --prefix DIR thrift' and give --node-modules DIR/node_modules, or do not ask for this language")
	}
	return []string{node, w.source, w.plan, w.generated}, env, nil
}

func firstFile(paths ...string) (string, bool) {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p, true
		}
	}
	return "", false
}

// child is a process in a group of its own, killed as a whole when ctx ends.
func child(ctx context.Context, dir string, env, command []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LANG=C.UTF-8"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func run(ctx context.Context, dir string, env []string, program string, args ...string) error {
	cmd := child(ctx, dir, env, append([]string{program}, args...))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, tail(string(out)))
	}
	return nil
}

// tail is the end of a program's messages.
func tail(s string) string {
	s = strings.TrimSpace(s)
	const most = 600
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return s
}
