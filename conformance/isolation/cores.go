package isolation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const corePattern = "/proc/sys/kernel/core_pattern"

// envCores names, for a run as nobody, the folder where root has the kernel put
// core files.
const envCores = "TESSERAE_CORES"

// cores lets VCMs crash that hold a key and looks for it in what the kernel leaves
// of them: in a file, and where a program of the host collects them, which no
// root and no limit of the process's own is in the way of.
func (s *Suite) cores(ctx context.Context) (err error) {
	if s.Short {
		s.print("isolation: core files: not tried in the short form: where they go is a setting of the whole host\n")
		return nil
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &before); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: before.Max, Max: before.Max}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Setrlimit(unix.RLIMIT_CORE, &before)) }()
	p, err := open(ctx, s.hostile, s.dir("cores-platform"), s.log, "--isolation-floor", "process")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	rows := []coreRow{
		{"nothing", strings.Join(layerNames(), "\n"), true},
		{"only " + dumpable, without(layerNames(), dumpable), false},
		{"all but " + dumpable, dumpable, true},
		{"everything", "", false},
	}
	collected := os.Getenv(envCores)
	if os.Geteuid() != 0 {
		if collected == "" || before.Max == 0 {
			s.print("isolation: core files: not tried: only root can say where the kernel puts them\n")
			return nil
		}
		return s.crashes(ctx, p, "collected", collected, rows)
	}
	dir := s.dir("cores")
	if err := os.Chmod(dir, 0o777); err != nil { // VCMs have uids of their own
		return err
	}
	for _, how := range []struct {
		name, pattern string
		rows          []coreRow
	}{
		{"a file", filepath.Join(dir, "core.%P"), []coreRow{rows[0], rows[3]}},
		{"collected", collector(s.Bin, dir), rows},
	} {
		undo, err := setCorePattern(how.pattern)
		if err != nil {
			return err
		}
		if err := errors.Join(s.crashes(ctx, p, how.name, dir, how.rows), undo()); err != nil {
			return err
		}
	}
	return nil
}

type coreRow struct {
	name, without string
	found         bool // the key is to be found
}

// without are the layers of all but the given ones, one a line.
func without(all []string, but ...string) (out string) {
	for _, name := range all {
		if !slices.Contains(but, name) {
			out += name + "\n"
		}
	}
	return out
}

// crashes has a VCM of each row crash and looks into dir.
func (s *Suite) crashes(ctx context.Context, p *platform, how, dir string, rows []coreRow) error {
	for _, r := range rows {
		v, err := p.create(ctx, "crashing", r.without)
		if err != nil {
			return err
		}
		if err := v.start(ctx); err != nil {
			return err
		}
		key, err := v.plant(ctx)
		if err != nil {
			return err
		}
		result, _, err := v.order(ctx, "crash", nil)
		if err != nil {
			return err
		}
		if result != killed {
			s.hole("core files, with %s: the VCM does not crash: %s", r.name, result)
		}
		files, times, err := lookForCore(dir, key, r.found)
		if err != nil {
			return err
		}
		switch {
		case r.found && times == 0:
			s.hole("core files (%s): that none has the key proves nothing: with %s none has it either (%d files)", how, r.name, files)
		case !r.found && files > 0:
			s.hole("core files (%s): with %s a crash leaves %d, with the key %d times", how, r.name, files, times)
		}
		s.print("isolation: core file, %-10s with %-21s %d left, the key in it %d times\n", how+",", r.name+":", files, times)
		if err := v.drop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// lookForCore waits for core files and removes them. Where there should be none it
// waits long enough for one to be missed.
func lookForCore(dir string, key []byte, wanted bool) (files, times int, err error) {
	patience := 700 * time.Millisecond
	if wanted {
		patience = 10 * time.Second
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		found, err := filepath.Glob(filepath.Join(dir, "core.*"))
		if err != nil {
			return 0, 0, err
		}
		for _, path := range found {
			text, err := os.ReadFile(path)
			if err != nil {
				return 0, 0, err
			}
			times += strings.Count(string(text), string(key))
		}
		if files = len(found); times > 0 || files > 0 && !wanted {
			break
		}
		times = 0 // it may not be complete
	}
	found, err := filepath.Glob(filepath.Join(dir, "*core.*"))
	for _, path := range found {
		err = errors.Join(err, os.Remove(path))
	}
	return files, times, err
}

func setCorePattern(pattern string) (undo func() error, err error) {
	before, err := os.ReadFile(corePattern)
	if err != nil {
		return nil, err
	}
	const most = 127 // more is cut off
	if len(pattern) > most {
		return nil, fmt.Errorf("core_pattern %q is too long for the kernel", pattern)
	}
	undo = func() error { return os.WriteFile(corePattern, before, 0) }
	return undo, os.WriteFile(corePattern, []byte(pattern), 0)
}

// collector has the kernel give core files to this program.
func collector(bin, dir string) string { return fmt.Sprintf("|%s/isolation collect %s %%P", bin, dir) }

// Collect is that program: it keeps a core file where everybody may read it.
func Collect(dir, pid string, core io.Reader) error {
	part, err := os.Create(filepath.Join(dir, "part-core."+pid))
	if err != nil {
		return err
	}
	_, err = io.Copy(part, core)
	if err = errors.Join(err, part.Chmod(0o644), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), filepath.Join(dir, "core."+pid))
}

// PrepareCores has the kernel, as root, collect core files for a run as nobody.
func PrepareCores(bin, dir string) (env []string, undo func() error, err error) {
	dir = filepath.Join(dir, "cores")
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, nil, err
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		return nil, nil, err
	}
	undo, err = setCorePattern(collector(bin, dir))
	return []string{envCores + "=" + dir}, undo, err
}
