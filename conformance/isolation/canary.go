package isolation

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
)

// canary has a VCM that was taken over hold a key and store it, and looks for the
// key, as root, in everything outside of that VCM: the memory of every other
// process, every file of the platform, the environment, what a crash leaves. The
// same for the key that a real VCM was given by its key management centre.
func (s *Suite) canary(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		s.print("isolation: the canary is looked for as root only: nobody cannot read the memory of VCMs\n")
		return nil
	}
	p, err := open(ctx, s.hostile, s.dir("canary"), s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	victim, _, err := p.equip(ctx, "victim")
	if err != nil {
		return err
	}
	attacker, err := p.create(ctx, "attacker", "")
	if err != nil {
		return err
	}
	if err := attacker.start(ctx); err != nil {
		return err
	}
	_, planted, err := victim.order(ctx, "canary", nil)
	if err != nil {
		return err
	}
	key, err := base64.StdEncoding.DecodeString(planted)
	if err != nil || len(key) != 32 {
		return fmt.Errorf("the VCM did not plant a key: %q, %v", planted, err)
	}
	centre, err := kmc.Open(p.Path("kmc", "centre"), nil)
	if err != nil {
		return err
	}
	group, err := centre.Find(123456, 1, 2014)
	if err != nil {
		return err
	}
	vending, err := hex.DecodeString(group.Key)
	if err != nil {
		return err
	}
	own, err := inMemory(victim.process.PID, key)
	if err != nil {
		return err
	}
	if own == 0 {
		s.hole("the canary is not in its own VCM: looking for it proves nothing")
	}
	s.print("isolation: canary: %d times in the memory of its own VCM (control)\n", own)
	look := func(when string) error {
		for _, n := range []struct {
			name string
			key  []byte
		}{{"canary", key}, {"vending key", vending}} {
			if err := s.elsewhere(p, attacker, n.name+" "+when, n.key); err != nil {
				return err
			}
		}
		return nil
	}
	if err := look("while it is in use"); err != nil {
		return err
	}
	// A crash with everything that the kernel and the runtime say about it.
	before, err := os.ReadDir(p.Path("platform"))
	if err != nil {
		return err
	}
	if err := syscall.Kill(victim.process.PID, syscall.SIGABRT); err != nil {
		return err
	}
	if err := p.Await(ctx, "the end of the VCM that crashed", func() bool { return !victim.process.Alive() }); err != nil {
		return err
	}
	after, err := os.ReadDir(p.Path("platform"))
	if err != nil {
		return err
	}
	if len(after) > len(before) {
		s.hole("a crash of a VCM leaves %d files", len(after)-len(before))
	}
	return look("after a crash")
}

// elsewhere looks for a key in what is not its VCM's memory.
func (s *Suite) elsewhere(p *platform, attacker *vcm, name string, key []byte) error {
	processes := map[string]int{"orchestratord": p.orchestrator.PID(), "hsmd": p.hsmd.PID(), "the attacker's VCM": attacker.process.PID}
	for who, pid := range processes {
		n, err := inMemory(pid, key)
		if err != nil {
			return err
		}
		if n > 0 {
			s.hole("the %s is %d times in the memory of %s", name, n, who)
		}
		for _, file := range []string{"environ", "cmdline"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil || contains(text, key) {
				s.hole("the %s is in the %s of %s: %v", name, file, who, err)
			}
		}
	}
	files, bytes := 0, int64(0)
	err := filepath.WalkDir(p.Path(), func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path == p.Path("kmc"): // whose keys they are
			return fs.SkipDir
		case !e.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files, bytes = files+1, bytes+int64(len(text))
		if contains(text, key) {
			s.hole("the %s is in %s", name, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return err
	}
	s.print("isolation: %-36s not in the memory of %d processes, nor in %d files (%.1f MiB); swap: %d areas\n",
		name+":", len(processes), files, float64(bytes)/(1<<20), strings.Count(string(swaps), "\n")-1)
	return nil
}

// contains looks for a key as it is and as text would show it.
func contains(text, key []byte) bool {
	for _, form := range [][]byte{
		key, []byte(hex.EncodeToString(key)), []byte(strings.ToUpper(hex.EncodeToString(key))), []byte(base64.StdEncoding.EncodeToString(key)),
		[]byte(base64.RawURLEncoding.EncodeToString(key)),
	} {
		if bytes.Contains(text, form) {
			return true
		}
	}
	return false
}

// inMemory counts how often a key is in the memory of a process, as the kernel
// shows it to root.
func inMemory(pid int, key []byte) (n int, err error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	defer maps.Close()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	const piece = 1 << 20
	buf := make([]byte, piece+len(key))
	read := 0
	for sc := bufio.NewScanner(maps); sc.Scan(); {
		f := strings.Fields(sc.Text())
		from, to, ok := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 63)
		end, err2 := strconv.ParseUint(to, 16, 63)
		if !ok || err1 != nil || err2 != nil || f[1][0] != 'r' {
			continue
		}
		for at := int64(start); at < int64(end); at += piece {
			got, err := mem.ReadAt(buf[:min(int64(len(buf)), int64(end)-at)], at)
			if err != nil && !errors.Is(err, io.EOF) && got == 0 {
				continue // such as memory that even the kernel cannot see
			}
			read += got
			n += bytes.Count(buf[:got], key)
		}
	}
	if read == 0 {
		return 0, fmt.Errorf("no memory of process %d can be read", pid)
	}
	return n, nil
}
