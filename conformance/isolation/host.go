package isolation

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// host is what the attempts are aimed at besides the neighbour.
type host struct {
	args map[string]string
	undo []func() error
}

// abstract is listened to while the attempts run, shared memory is there.
func (p *platform) host() (_ *host, err error) {
	h := &host{args: map[string]string{
		"unit": p.Path("platform", "unit.json"), "hsm": p.Path("hsmd.sock"), "orchestrator": fmt.Sprint(p.orchestrator.PID()),
		"domain": fmt.Sprintf("taken-over-%x", rand.Uint32()),
		"setuid": os.Getenv(envSetUID), "secret": os.Getenv(envSecret),
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	endpoints, err := p.Endpoints()
	if err != nil {
		return nil, err
	}
	h.args["platform"] = endpoints["sshadmin"]
	name := fmt.Sprintf("tesserae-isolation-%x", rand.Uint64())
	l, err := net.Listen("unix", "@"+name)
	if err != nil {
		return nil, err
	}
	h.args["abstract"] = name
	h.undo = append(h.undo, l.Close)
	key := 1 + rand.IntN(1<<30)
	id, err := unix.SysvShmGet(key, 4096, unix.IPC_CREAT|unix.IPC_EXCL|0o600)
	if err != nil {
		return nil, fmt.Errorf("shared memory (System V): %w", err)
	}
	h.args["shm"] = fmt.Sprint(key)
	h.undo = append(h.undo, func() error {
		_, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		return err
	})
	return h, nil
}

func (h *host) close() error {
	var errs []error
	for _, undo := range h.undo {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// aim adds the neighbour.
func (h *host) aim(attacker, victim *vcm) map[string]string {
	out := map[string]string{"pid": fmt.Sprint(victim.process.PID), "dir": victim.dir(), "address": victim.control, "own": attacker.dir()}
	for k, v := range h.args {
		out[k] = v
	}
	return out
}

// domainName checks whether an attempt to rename the host's domain had an effect,
// and undoes it.
func (h *host) domainName(before string) (bool, error) {
	now, err := domainName()
	if err != nil || now != h.args["domain"] {
		return false, err
	}
	return true, unix.Setdomainname([]byte(before))
}

func domainName() (string, error) {
	p, err := os.ReadFile("/proc/sys/kernel/domainname")
	return strings.TrimSpace(string(p)), err
}

// The environment of a run as nobody names what root has prepared for it.
const (
	envSetUID = "TESSERAE_SET_UID"
	envSecret = "TESSERAE_SECRET"
)

// PrepareSetUID makes, as root, a set-uid program in dir and a file that only
// root can read; the variables tell a run as nobody of them.
func PrepareSetUID(dir string) (env []string, err error) {
	program, secret := filepath.Join(dir, "set-uid-cat"), filepath.Join(dir, "secret-of-root")
	if err := os.WriteFile(secret, []byte("of root alone\n"), 0o600); err != nil {
		return nil, err
	}
	from, err := os.Open("/bin/cat")
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close(), os.Chmod(program, 0o755|os.ModeSetuid)); err != nil {
		return nil, err
	}
	return []string{envSetUID + "=" + program, envSecret + "=" + secret}, nil
}
