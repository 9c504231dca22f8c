package isolation

import (
	"context"
	"errors"
	"os"
	"regexp"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// moduleOf is a tenant's module, and the key load file that it was given.
func (t *replay) moduleOf(tenant string) (module string, klf []byte, err error) {
	if err := t.as(tenant); err != nil {
		return "", nil, err
	}
	if module, err = t.Module(); err != nil {
		return "", nil, err
	}
	klf, err = os.ReadFile(t.Mail("keys.klf"))
	return module, klf, err
}

// keyLoads: A's key load file, while B expects none and while it waits for its own.
func (t *replay) keyLoads(ctx context.Context) error {
	moduleA, klfA, err := t.moduleOf("a")
	if err != nil {
		return err
	}
	moduleC, klfC, err := t.moduleOf("c")
	if err != nil {
		return err
	}
	moduleB, _, err := t.moduleOf("b")
	if err != nil {
		return err
	}
	keys := func() (string, error) { return t.Run(ctx, rig.Tenant, "ptokenadmin", "vk", "list", "--json") }
	upload := func(klf []byte) (string, error) {
		path := t.Mail("foreign.klf")
		if err := os.WriteFile(path, klf, 0o600); err != nil {
			return "", err
		}
		out, err := t.Try(ctx, rig.Tenant, "ptokenadmin", "kmc", "upload-klf", path)
		return said(out), err
	}
	try := func(what string) error {
		if err := t.as("b"); err != nil {
			return err
		}
		before, err := keys()
		if err != nil {
			return err
		}
		r := replayed{what: what} // that it is good at A's is how A came to vend
		if r.theirs, err = upload(klfA); err != nil {
			return err
		}
		if r.none, err = upload(klfC); err != nil {
			return err
		}
		after, err := keys()
		if err != nil {
			return err
		}
		if before != after {
			r.after = errors.New("the keys of B have changed")
		}
		t.record(r, moduleA, moduleC)
		return nil
	}
	if err := try("a key load file"); err != nil {
		return err
	}
	if err := t.as("b"); err != nil {
		return err
	}
	for _, old := range []string{"vkloadreq.txt", "keys.klf"} {
		if err := os.Remove(t.Mail(old)); err != nil {
			return err
		}
	}
	if _, err := t.Run(ctx, rig.Tenant, "ptokenadmin", "kmc", "generate-request", "--out", t.Mail("vkloadreq.txt"), "TEST-KMC"); err != nil {
		return err
	}
	if err := try("a key load file, B waits for its own"); err != nil {
		return err
	}
	// B's slot is still open, and for its own file.
	if err := t.as("b"); err != nil {
		return err
	}
	last := &t.rows[len(t.rows)-1]
	last.after = errors.Join(last.after, t.KeyLoad(ctx, moduleB), t.vends(ctx))
	if last.after != nil {
		t.suite.hole("tenants: %s: afterwards B cannot load its own: %v", last.what, last.after)
	}
	return nil
}

var noncePattern = regexp.MustCompile(`(?m)^smcq\.Nonce *: *([0-9A-Fa-f]{16})`)

// licence: A's transaction licence, valid at A's module at that moment.
func (t *replay) licence(ctx context.Context) error {
	moduleA, _, err := t.moduleOf("a")
	if err != nil {
		return err
	}
	moduleC, _, err := t.moduleOf("c")
	if err != nil {
		return err
	}
	if err := t.as("a"); err != nil {
		return err
	}
	status, err := t.Run(ctx, rig.Tenant, "ptokenadmin", "sm", "status")
	if err != nil {
		return err
	}
	nonce := noncePattern.FindStringSubmatch(status)
	if nonce == nil {
		return errors.New("'ptokenadmin sm status' names no nonce")
	}
	load := func(tenant, module string) (string, error) {
		if err := t.as(tenant); err != nil {
			return "", err
		}
		file := t.Mail("tx.licence")
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if _, err := t.Run(ctx, rig.Maker, "vendor", "transaction-licence", "--dir", t.Path("maker", "keys"), "--module-id", module,
			"--nonce", nonce[1], "--transactions", "unlimited", "--out", file); err != nil {
			return "", err
		}
		out, err := t.Try(ctx, rig.Tenant, "ptokenadmin", "license", "load", file)
		return said(out), err
	}
	r := replayed{what: "a transaction licence"}
	if r.theirs, err = load("b", moduleA); err != nil {
		return err
	}
	if r.none, err = load("b", moduleC); err != nil {
		return err
	}
	own, err := load("a", moduleA) // last: it uses the nonce up
	if err != nil {
		return err
	}
	if own != "" {
		r.before = errors.New(own)
	}
	r.after = t.vends(ctx)
	t.record(r, moduleA, moduleC)
	return nil
}
