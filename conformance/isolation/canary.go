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
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// canary has a VCM that was taken over hold a key and store it, and looks for the
// key in everything outside of that VCM: the memory of every other process, every
// file of the platform, /proc, swap, what a crash leaves and what a crash of the
// orchestrator says. The same for the key that a real VCM was given by its key
// management centre. As root it sees what the kernel shows to root; as nobody what
// somebody with the platform's own uid sees.
func (s *Suite) canary(ctx context.Context) (err error) {
	p, err := open(ctx, s.hostile, s.dir("canary"), s.log, "--isolation-floor", "process", "--orphan-grace", "1s")
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
	key, err := victim.plant(ctx)
	if err != nil {
		return err
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
	if err := s.canaryControl(ctx, p, victim, key); err != nil {
		return err
	}
	look := func(when string) error {
		// What is exported is a file like any other.
		if err := os.MkdirAll(p.Mail("log-"+when), 0o700); err != nil {
			return err
		}
		if _, err := p.Try(ctx, rig.Tenant, "hsmadmin", "vcm", "logs", "export", "--outdir", p.Mail("log-"+when)); err != nil {
			return err
		}
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
	if err := look("in use"); err != nil {
		return err
	}
	// A crash with everything that the kernel and the runtime say about it.
	before, err := os.ReadDir(p.Path("platform"))
	if err != nil {
		return err
	}
	if err := victim.crash(ctx); err != nil {
		return err
	}
	after, err := os.ReadDir(p.Path("platform"))
	if err != nil {
		return err
	}
	if len(after) > len(before) {
		s.hole("a crash of a VCM leaves %d files", len(after)-len(before))
	}
	if err := look("after a crash"); err != nil {
		return err
	}
	// The orchestrator says where each of its routines is, and ends.
	for _, v := range []*vcm{victim, attacker} {
		if err := v.stop(ctx); err != nil {
			return err
		}
	}
	if err := syscall.Kill(p.orchestrator.PID(), syscall.SIGQUIT); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); running(p.orchestrator.PID()) && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	p.Kill(p.orchestrator) // it ended on its own account
	log := p.Path("log", "orchestratord.log")
	if text, err := os.ReadFile(log); err != nil || !strings.Contains(string(text), "SIGQUIT: quit") || !strings.Contains(string(text), "goroutine ") {
		s.hole("canary: the orchestrator does not say where its routines are: that the key is not in it proves nothing (%v)", err)
	}
	for _, k := range [][]byte{key, vending} {
		if err := s.inFiles(p, "key", k, "once the orchestrator has told its routines"); err != nil {
			return err
		}
	}
	return nil
}

// plant has a VCM make, hold and store a key.
func (v *vcm) plant(ctx context.Context) ([]byte, error) {
	_, planted, err := v.order(ctx, "canary", nil)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(planted)
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("the VCM did not plant a key: %q, %v", planted, err)
	}
	return key, nil
}

// crash ends a VCM by a signal that the runtime answers with all it knows. Its
// supervisor starts it again.
func (v *vcm) crash(ctx context.Context) error {
	if os.Geteuid() == 0 {
		if err := syscall.Kill(v.process.PID, syscall.SIGABRT); err != nil {
			return err
		}
	} else if _, _, err := v.order(ctx, "crash", nil); err != nil { // from inside: it may have no other way
		return err
	}
	return v.p.Await(ctx, "the end of the VCM that crashed", func() bool { return !v.process.Alive() })
}

func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// canaryControl finds the key where it has to be: in the memory of its own VCM, for
// nobody in that of one without layers; and however it is written down.
func (s *Suite) canaryControl(ctx context.Context, p *platform, victim *vcm, key []byte) error {
	if os.Geteuid() != 0 {
		if err := s.owner(ctx, victim, key); err != nil {
			return err
		}
		bare, err := p.create(ctx, "bare", strings.Join(layerNames(), "\n"))
		if err != nil {
			return err
		}
		if err := bare.start(ctx); err != nil {
			return err
		}
		if key, err = bare.plant(ctx); err != nil {
			return err
		}
		victim = bare
		defer func() { _ = bare.drop(ctx) }()
	}
	own, err := inMemory(victim.process.PID, key)
	if err != nil {
		return err
	}
	if own == 0 {
		s.hole("the canary is not in its own VCM: looking for it proves nothing")
	}
	for _, form := range []string{string(key), hex.EncodeToString(key), base64.StdEncoding.EncodeToString(key)} {
		if !contains([]byte("x"+form+"x"), key) {
			s.hole("canary: one that is written down is not found: %q", form)
		}
	}
	s.print("isolation: canary: %d times in the memory of its own VCM (control%s)\n", own, map[bool]string{true: "", false: ", which has no layers"}[os.Geteuid() == 0])
	return nil
}

// elsewhere looks for a key in what is not its VCM's memory.
func (s *Suite) elsewhere(p *platform, attacker *vcm, name string, key []byte) error {
	closed := 0
	processes := map[string]int{"orchestratord": p.orchestrator.PID(), "hsmd": p.hsmd.PID(), "the attacker's VCM": attacker.process.PID}
	for who, pid := range processes {
		n, err := inMemory(pid, key)
		switch {
		case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
			closed++
		case err != nil:
			return err
		case n > 0:
			s.hole("the %s is %d times in the memory of %s", name, n, who)
		}
		for _, file := range []string{"environ", "cmdline", "maps", "status", "stat"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
				continue
			}
			if err != nil || contains(text, key) {
				s.hole("the %s is in the %s of %s: %v", name, file, who, err)
			}
		}
	}
	memory := fmt.Sprintf("not in the memory of %d processes", len(processes)-closed)
	if closed > 0 {
		memory += fmt.Sprintf(" (%d more are closed to who asks)", closed)
	}
	return s.inFiles(p, name, key, memory)
}

// inFiles looks for a key in every file of the platform and in swap.
func (s *Suite) inFiles(p *platform, name string, key []byte, besides string) error {
	kinds, size := map[string]int{}, int64(0)
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
		if errors.Is(err, fs.ErrNotExist) { // files come and go in etcd's folder
			return nil
		}
		if err != nil {
			return err
		}
		kind := "other"
		for _, k := range []string{"etcd", "log", "vcms", "unit"} {
			if strings.Contains(path, "/"+k+"/") || k == "log" && strings.Contains(path, "/log-") {
				kind = k
				break
			}
		}
		kinds[kind], size = kinds[kind]+1, size+int64(len(text))
		if contains(text, key) {
			s.hole("the %s is in %s", name, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, kind := range []string{"etcd", "log", "vcms", "unit"} {
		if kinds[kind] == 0 {
			s.hole("canary: there is no file of %s to look into", kind)
		}
	}
	swap, err := s.inSwap(name, key)
	if err != nil {
		return err
	}
	s.print("isolation: %-26s %s; nor in %d files of etcd, %d logs, %d of VCMs, %d of hsmd, %d others (%.1f MiB); swap: %s\n",
		name+":", besides, kinds["etcd"], kinds["log"], kinds["vcms"], kinds["unit"], kinds["other"], float64(size)/(1<<20), swap)
	return nil
}

// inSwap looks for a key in each area of swap, as root.
func (s *Suite) inSwap(name string, key []byte) (string, error) {
	text, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return "", err
	}
	areas := strings.Split(strings.TrimSpace(string(text)), "\n")[1:]
	if len(areas) == 0 {
		return "none is on", nil
	}
	if os.Geteuid() != 0 {
		return fmt.Sprintf("%d areas, closed to who asks", len(areas)), nil
	}
	for _, area := range areas {
		f, err := os.Open(strings.Fields(area)[0])
		if err != nil {
			return "", err
		}
		n, err := count(f, key)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", err
		}
		if n > 0 {
			s.hole("the %s is %d times in swap (%s)", name, n, strings.Fields(area)[0])
		}
	}
	return fmt.Sprintf("not in %d areas", len(areas)), nil
}

// count counts a key in what may be large.
func count(r io.Reader, key []byte) (n int, err error) {
	buf, kept := make([]byte, 4<<20), 0
	for {
		got, err := r.Read(buf[kept:])
		all := buf[:kept+got]
		n += bytes.Count(all, key)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		kept = copy(buf, all[max(0, len(all)-len(key)+1):])
	}
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
