package enrol

import (
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	// adminGroup may read root's keys of the services below, where it exists.
	adminGroup = "nfastadmin"
	// ownerGroup is the name of no group: the owner keeps the key to himself.
	ownerGroup = "root"
)

// defaultGroup is who may read root's key of a service where the environment
// says nothing.
func defaultGroup(service string) string {
	switch service {
	case "updater", "monitor", "launcher", "orchestrator":
		return adminGroup
	default: // sshadmin, setup, prismtoken, conductor, tenantreq
		return ownerGroup
	}
}

// newGroup decides which group may read a new key of service; "" is none. chosen
// says that the environment names it.
func (h *Home) newGroup(service string) (group string, chosen bool, err error) {
	variable := "NFAST_" + strings.ToUpper(service) + "_GROUP"
	group = h.env.Getenv(variable)
	chosen = group != ""
	if !chosen && h.env.Root {
		group = defaultGroup(service)
	}
	if group == "" || group == ownerGroup {
		return "", chosen, nil
	}
	_, err = h.env.Group(group)
	switch {
	case err == nil:
		return group, chosen, nil
	case chosen:
		return "", true, errkind.Errorf(errkind.Invalid, "%s: this host has no group %s; make it with 'groupadd %s'", variable, group, group)
	default:
		return "", false, nil
	}
}

// share lets a group read the key in dir, and everybody pass the folders above it,
// which stay closed to look into.
func (h *Home) share(dir, group string) error {
	id, err := h.env.Group(group)
	if err != nil {
		return errkind.Errorf(errkind.NotFound, "group %s: %w", group, err)
	}
	for name, mode := range map[string]os.FileMode{"": 0o750, keyFile: 0o640, publicFile: 0o640, protectionFile: 0o640} {
		path := filepath.Join(dir, name)
		if err := os.Chown(path, -1, id); err != nil {
			return errkind.Errorf(errkind.Refused, "give a key to group %s: %w", group, err)
		}
		if err := os.Chmod(path, mode); err != nil {
			return fmt.Errorf("services home: %w", err)
		}
	}
	for _, above := range []string{filepath.Dir(dir), h.dir} {
		if err := os.Chmod(above, 0o711); err != nil {
			return fmt.Errorf("services home: %w", err)
		}
	}
	return nil
}

// regroup gives the key in dir to the group that the environment names, if it
// names one.
func (h *Home) regroup(dir, service string) error {
	group, chosen, err := h.newGroup(service)
	if err != nil || !chosen {
		return err
	}
	p, err := readProtection(dir)
	if err != nil || p.Group == group {
		return err
	}
	if group != "" { // fails before anything has changed
		id, err := h.env.Group(group)
		if err == nil {
			err = os.Chown(filepath.Join(dir, publicFile), -1, id)
		}
		if err != nil {
			return errkind.Errorf(errkind.Refused, "give the %s key to group %s: %w", service, group, err)
		}
	}
	// Nobody but the owner in between: a key that others can read names its group.
	for name, mode := range map[string]os.FileMode{"": 0o700, keyFile: 0o600} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			return fmt.Errorf("services home: %w", err)
		}
	}
	p.Group = group
	rules, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("the %s key: %w", service, err)
	}
	if err := atomicfile.Write(filepath.Join(dir, protectionFile), append(rules, '\n'), 0o600); err != nil {
		return fmt.Errorf("services home: %w", err)
	}
	if group == "" {
		return nil
	}
	return h.share(dir, group)
}

// checkAccess reports whether nobody can use the file but its owner and the group
// that it was given to, "" for none.
func (h *Home) checkAccess(path, group string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	open := fi.Mode().Perm() & 0o077
	if open&0o040 != 0 && group != "" {
		id, err := h.env.Group(group)
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && err == nil && int(st.Gid) == id {
			open &^= 0o040
		}
	}
	if open != 0 {
		return errkind.Errorf(errkind.Refused, "%s is accessible to others (mode %04o); set it to 0600 and roll the key if somebody may have read it", path, fi.Mode().Perm())
	}
	return nil
}

// groupID looks a group up on this host.
func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
