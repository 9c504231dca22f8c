package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// nonces are what differs from call to call.
var nonces = regexp.MustCompile(`127\.[0-9.]+:[0-9]+->127\.[0-9.]+:[0-9]+|SHA256:[A-Za-z0-9+/]+`)

// sshKeys: the key of a tenant with a VCM of his own at B's sshadmin service,
// against that of somebody who has none. The first one has not enrolled yet: his
// own tool would not even ask otherwise.
func (t *replay) sshKeys(ctx context.Context) error {
	if err := t.as("third"); err != nil {
		return err
	}
	v, err := t.create(ctx, "third", "")
	if err != nil {
		return err
	}
	if err := v.start(ctx); err != nil {
		return err
	}
	enrol := func(file []byte) (string, error) {
		path := t.Mail("to-enrol.vcm")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			return "", err
		}
		out, err := t.Try(ctx, rig.Tenant, "hsmadmin", "vcm", "enroll", "--config", path, "--maker-root", t.MakerRoot())
		return said(out), err
	}
	r := replayed{what: "a key for sshadmin, at enrolment"}
	if r.theirs, err = enrol(t.vb.file); err != nil {
		return err
	}
	own, err := enrol(v.file)
	if err != nil {
		return err
	}
	if own != "" {
		r.before = errors.New(own)
	}
	if err := t.as("stranger"); err != nil {
		return err
	}
	if _, err := t.Request(ctx, "strange"); err != nil { // a key of his own, as the other has one
		return err
	}
	if r.none, err = enrol(t.vb.file); err != nil {
		return err
	}
	r.after = t.manages(ctx, "b")
	t.record(r)
	return v.drop(ctx)
}

// manages reports whether a tenant's own tools reach his VCM.
func (t *replay) manages(ctx context.Context, tenant string) error {
	if err := t.as(tenant); err != nil {
		return err
	}
	for _, command := range [][]string{{"ptokenadmin", "status"}, {"hsmadmin", "vcm", "logs", "export", "--outdir", t.Mail("")}} {
		if _, err := t.Run(ctx, rig.Tenant, command[0], command[1:]...); err != nil {
			return fmt.Errorf("tenant %s: %w", tenant, err)
		}
	}
	return nil
}

// serviceKeys: the keys that A's own services take, at those of B. A makes his
// tools believe that B's VCM is his; so does C, whose VCM is no more.
func (t *replay) serviceKeys(ctx context.Context) error {
	for _, c := range []struct {
		what    string
		command []string
	}{
		{"a key for prismtoken", []string{"ptokenadmin", "status", "--uuid", t.b.UUID}},
		{"a key for monitor", []string{"hsmadmin", "vcm", "getenvstats", "--uuid", t.b.UUID}},
	} {
		r := replayed{what: c.what, before: t.manages(ctx, "a")}
		for tenant, answer := range map[string]*string{"a": &r.theirs, "c": &r.none} {
			if err := t.as(tenant); err != nil {
				return err
			}
			own := t.Path("tenant-"+tenant, "services", "vcms", t.b.UUID)
			if err := os.CopyFS(own, os.DirFS(t.Path("tenant-b", "services", "vcms", t.b.UUID))); err != nil {
				return err
			}
			out, err := t.Try(ctx, rig.Tenant, c.command[0], c.command[1:]...)
			if err = errors.Join(err, os.RemoveAll(own)); err != nil {
				return err
			}
			*answer = said(out)
		}
		r.after = t.manages(ctx, "b")
		t.record(r)
	}
	return nil
}

// properties: what A signs does nothing to B's VCM.
func (t *replay) properties(ctx context.Context) error {
	for _, id := range []string{t.a.UUID, t.b.UUID} { // properties are changed of VCMs that do not run
		if err := t.halt(ctx, id); err != nil {
			return err
		}
	}
	change := func(tenant, named, at, name string) error {
		if err := t.as(tenant); err != nil {
			return err
		}
		file := t.Mail("change.req")
		if _, err := t.Run(ctx, rig.Tenant, "hsmadmin", "vcm", "setproperties", "--force", "--request-file", file, "--uuid", named, "--name", name,
			"--maker-root", t.MakerRoot()); err != nil {
			return err
		}
		request, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return t.provider(ctx, func(h *rig.Hosting) error {
			_, err := h.SetProperty(ctx, request, at, "name", name)
			return err
		})
	}
	r := replayed{what: "a request signed by A, for B's VCM", before: change("a", t.a.UUID, t.a.UUID, "mine"),
		theirs: nonces.ReplaceAllString(text(change("a", t.b.UUID, t.b.UUID, "taken")), "#"),
		none:   nonces.ReplaceAllString(text(change("stranger", t.b.UUID, t.b.UUID, "taken")), "#")}
	r.after = change("b", t.b.UUID, t.b.UUID, "still-of-b")
	t.record(r)
	const never = "00000000-0000-4000-8000-000000000000"
	r = replayed{what: "A's request for his own VCM", before: change("a", t.a.UUID, t.a.UUID, "mine-again"),
		theirs: text(change("a", t.a.UUID, t.b.UUID, "taken")), none: text(change("a", never, t.b.UUID, "taken"))}
	r.after = change("b", t.b.UUID, t.b.UUID, "of-b-again")
	t.record(r, t.a.UUID, never)
	return nil
}

func (t *replay) halt(ctx context.Context, id string) error {
	return t.provider(ctx, func(h *rig.Hosting) error {
		_, err := h.Stop(ctx, id, true, 10)
		return err
	})
}

// starts: start requests, without which a VCM of restrict-startup has no key.
func (t *replay) starts(ctx context.Context) error {
	uuids := map[string]string{}
	files := map[string][]byte{}
	for _, tenant := range []string{"a", "b"} {
		if err := t.as(tenant); err != nil {
			return err
		}
		v, err := t.create(ctx, "restricted", "", "--restrict-startup")
		if err != nil {
			return err
		}
		uuids[tenant], files[tenant] = v.uuid, v.file
	}
	// start has a tenant sign a request for a VCM and the provider use it at one.
	start := func(tenant, named, at string) error {
		if err := t.as(tenant); err != nil {
			return err
		}
		file := t.Mail("start.req")
		command := []string{"vcm", "start", "--force", "--request-file", file, "--uuid", named}
		if named == uuids[tenant] { // his own, of which he has the share
			config := t.Mail("restricted.vcm")
			if err := os.WriteFile(config, files[tenant], 0o600); err != nil {
				return err
			}
			command = []string{"vcm", "start", "--force", "--request-file", file, "--config", config, "--maker-root", t.MakerRoot()}
		}
		if out, err := t.Try(ctx, rig.Tenant, "hsmadmin", command...); err != nil || out.Code != 0 {
			return fmt.Errorf("the tenant's own tool: %s%w", said(out), errors.Join(err))
		}
		request, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return t.provider(ctx, func(h *rig.Hosting) error {
			_, err := h.Start(ctx, at, request, 30)
			return err
		})
	}
	works := func(tenant string) error {
		return errors.Join(start(tenant, uuids[tenant], uuids[tenant]), t.halt(ctx, uuids[tenant]))
	}
	const never = "00000000-0000-4000-8000-000000000000"
	r := replayed{what: "A's start request, at B's VCM", before: works("a"), theirs: text(start("a", uuids["a"], uuids["b"])), none: text(start("a", never, uuids["b"]))}
	r.after = errors.Join(works("b"), works("a"))
	t.record(r, uuids["a"], never)
	r = replayed{what: "a start request by A, for B's VCM", before: works("a"), theirs: nonces.ReplaceAllString(text(start("a", uuids["b"], uuids["b"])), "#"),
		none: nonces.ReplaceAllString(text(start("stranger", uuids["b"], uuids["b"])), "#")}
	r.after = errors.Join(works("b"), works("a"))
	t.record(r)
	return nil
}
