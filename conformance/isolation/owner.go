package isolation

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// envUnreadable names, for a run as nobody, a vcmd of root's that nobody may
// execute but not read.
const envUnreadable = "TESSERAE_UNREADABLE"

// owner looks, as the platform's own user and from outside of any VCM, into the
// memory of VCMs that have every layer which nobody can give. Their user namespaces
// are his: the kernel gives him all privileges in them, that of a debugger included,
// whatever they say about dumps. It does not where the program is not his to read.
func (s *Suite) owner(ctx context.Context, victim *vcm, key []byte) (err error) {
	n, err := inMemory(victim.process.PID, key)
	switch {
	case errors.Is(err, fs.ErrPermission):
		s.hole("canary: the memory of a VCM is closed to the owner of its user namespace: that it is closed with another program proves nothing")
	case err != nil:
		return err
	}
	s.print("isolation: canary: with a vcmd that this user can read, whoever has the platform's uid finds it %d times in the memory of a VCM: he owns its user namespace\n", n)
	program := os.Getenv(envUnreadable)
	if program == "" {
		s.print("isolation: canary: with one that he cannot read: not tried: only root can make it\n")
		return nil
	}
	bin := filepath.Join(s.Dir, "bin-unreadable")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.hostile)
	if err != nil {
		return err
	}
	for _, e := range entries {
		to := filepath.Join(s.hostile, e.Name())
		if e.Name() == "vcmd" {
			to = program
		}
		if err := os.Symlink(to, filepath.Join(bin, e.Name())); err != nil {
			return err
		}
	}
	p, err := open(ctx, bin, s.dir("unreadable"), s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	v, err := p.create(ctx, "unreadable", "")
	if err != nil {
		return err
	}
	if err := v.start(ctx); err != nil {
		return err
	}
	if key, err = v.plant(ctx); err != nil {
		return err
	}
	if _, err := inMemory(v.process.PID, key); !errors.Is(err, fs.ErrPermission) {
		s.hole("canary: the memory of a VCM whose program its user cannot read is open to him: %v", err)
		return nil
	}
	s.print("isolation: canary: with one that he may only execute it is closed to him: level %s; %s\n", v.report.IsolationLevel, v.line(dumpable))
	return nil
}

// PrepareUnreadable makes, as root, such a program in dir.
func PrepareUnreadable(bin, dir string) (env []string, err error) {
	path := filepath.Join(dir, "vcmd")
	from, err := os.Open(filepath.Join(hostileDir(bin), "vcmd"))
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o711)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(to, from)
	return []string{envUnreadable + "=" + path}, errors.Join(err, to.Chmod(0o711), to.Close())
}
