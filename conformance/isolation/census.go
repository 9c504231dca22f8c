package isolation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// descriptors counts what VCMs have open, from inside and from outside, where the
// orchestrator has inherited something that it should not pass on; and gives a
// VCM's program something undeclared.
func (s *Suite) descriptors(ctx context.Context) (err error) {
	const leaked = "/etc/passwd"
	bin, err := s.wrapped(s.hostile, "leak", "leak", leaked)
	if err != nil {
		return err
	}
	p, err := open(ctx, bin, s.dir("descriptors"), s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	if n, err := leads(p.orchestrator.PID(), leaked); err != nil || n != 1 {
		s.hole("census: that nothing is passed on proves nothing: the orchestrator has %s open %d times (%v)", leaked, n, err)
	}
	v, err := p.create(ctx, "counted", "")
	if err != nil {
		return err
	}
	if err := v.start(ctx); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		s.census(v)
	}
	before, err := v.inside(ctx)
	if err != nil {
		return err
	}
	// The connection by which it is asked is there, too.
	want := map[uint64]int{unix.S_IFSOCK: len(v.report.Endpoints) + 2 + 1, unix.S_IFDIR: 1, unix.S_IFREG: 3}
	if !maps.Equal(before, want) {
		s.hole("census: a VCM counts %s inside instead of %s", kinds(before), kinds(want))
	}
	// Positive control: one more is found.
	if _, _, err := v.order(ctx, "leak", nil); err != nil {
		return err
	}
	after, err := v.inside(ctx)
	if err != nil {
		return err
	}
	if after[unix.S_IFDIR] != want[unix.S_IFDIR]+1 {
		s.hole("census: that it finds nothing proves nothing: one descriptor was left open and it counts %s", kinds(after))
	}
	s.print("isolation: census: a VCM has %s open, nothing of what its orchestrator has inherited; one left open on purpose is found: %s\n", kinds(before), kinds(after))
	return s.undeclared(ctx)
}

// inside is what a VCM counts itself, but for the standard streams and the
// runtime's own pollers.
func (v *vcm) inside(ctx context.Context) (map[uint64]int, error) {
	_, list, err := v.order(ctx, "census", nil)
	if err != nil {
		return nil, err
	}
	count := map[uint64]int{}
	for f := range strings.FieldsSeq(list) {
		number, mode, _ := strings.Cut(f, ":")
		fd, err1 := strconv.Atoi(number)
		kind, err2 := strconv.ParseUint(mode, 8, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("census %q: %w", list, err)
		}
		const anonymous = 0
		if fd > 2 && kind != anonymous {
			count[kind]++
		}
	}
	return count, nil
}

func kinds(count map[uint64]int) string {
	out := fmt.Sprintf("%d sockets, %d folders, %d files", count[unix.S_IFSOCK], count[unix.S_IFDIR], count[unix.S_IFREG])
	for kind, n := range count {
		if kind != unix.S_IFSOCK && kind != unix.S_IFDIR && kind != unix.S_IFREG {
			out += fmt.Sprintf(", %d of kind %o", n, kind)
		}
	}
	return out
}

// undeclared starts the shipped vcmd with all that it is declared to have, and
// once with one descriptor more.
func (s *Suite) undeclared(ctx context.Context) error {
	for _, more := range []bool{false, true} {
		said, err := s.bare(ctx, more)
		if err != nil {
			return err
		}
		const refusal = "inherited by mistake"
		switch refused := strings.Contains(said, refusal); {
		case more && !refused:
			s.hole("census: vcmd starts with an undeclared descriptor: %s", said)
		case !more && refused:
			s.hole("census: that vcmd refuses an undeclared descriptor proves nothing: it refuses the declared ones, too: %s", said)
		case more:
			s.print("isolation: census: vcmd with a descriptor too many: %.120s\n", strings.TrimSpace(said))
		}
	}
	return nil
}

// bare runs vcmd by hand until its control socket is closed, and returns what it
// says.
func (s *Suite) bare(ctx context.Context, more bool) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	data, err := os.Open(s.dir("bare"))
	if err != nil {
		return "", err
	}
	defer data.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, "vcmd"))
	cmd.Env = []string{}
	// Whoever has started the suite may have left it more than the declared ones.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return "", err
	}
	var here []*os.File
	for _, name := range []string{"control", "device"} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		here = append(here, os.NewFile(uintptr(fds[0]), name))
		there := os.NewFile(uintptr(fds[1]), name)
		defer there.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, there)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, data)
	if more {
		leak, err := os.Open("/etc/passwd")
		if err != nil {
			return "", err
		}
		defer leak.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, leak)
	}
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	for _, f := range here { // nobody wants anything of it
		_ = f.Close()
	}
	_ = cmd.Wait() // it cannot end well either way
	return out.String(), ctx.Err()
}

// leads counts the descriptors of a process that lead to a file.
func leads(pid int, path string) (n int, err error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to == path {
			n++
		}
	}
	return n, err
}

// Leak opens a file that the given program inherits, and becomes it.
func Leak(path string, program []string) error {
	if _, err := unix.Open(path, unix.O_RDONLY, 0); err != nil {
		return err
	}
	return become(program)
}

// census compares a VCM's descriptors with those that it is declared to have.
func (s *Suite) census(v *vcm) {
	dir := fmt.Sprintf("/proc/%d/fd", v.process.PID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.hole("census: %v", err)
	}
	count := map[string]int{}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		kind, _, _ := strings.Cut(to, ":")
		if strings.HasSuffix(to, "/statm") {
			kind = "statm"
		}
		if standard := len(e.Name()) == 1 && e.Name() <= "2"; standard && kind != "pipe" && kind != "/dev/null" || !standard && kind == "pipe" {
			s.hole("census: descriptor %s leads to %s", e.Name(), to)
		}
		count[kind]++
	}
	delete(count, "pipe")
	delete(count, "/dev/null")
	delete(count, "anon_inode") // the runtime's own pollers
	// The listeners, the control socket and the device channel; the data directory
	// and the two files of the store; how much memory it uses itself.
	want := map[string]int{"socket": len(v.report.Endpoints) + 2, "/data": 1, "/data/store.log": 1, "/data/store.new": 1, "statm": 1}
	if !maps.Equal(count, want) {
		s.hole("census: a VCM has %v open instead of %v", count, want)
	}
}
