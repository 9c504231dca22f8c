package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// tenants takes what belongs to tenant A to the VCM of tenant B: it must be
// refused there, in the same words as something that has never existed.
func (s *Suite) tenants(ctx context.Context) (err error) {
	p, err := open(ctx, s.programs, s.dir("tenants"), s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	_, a, err := p.equip(ctx, "a")
	if err != nil {
		return err
	}
	vb, b, err := p.equip(ctx, "b")
	if err != nil {
		return err
	}
	t := &replay{suite: s, platform: p, a: a, b: b, vb: vb}
	for _, step := range []func(context.Context) error{t.tokenService, t.sshKeys, t.files, t.requests} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

type replay struct {
	suite *Suite
	*platform
	a, b *rig.VCM
	vb   *vcm
}

// same compares the answers to A's object and to one that never existed. varying
// are the words in which they may differ, because the caller said them himself.
func (t *replay) same(what, theirs, none string, varying ...string) {
	for _, w := range varying {
		if w != "" {
			theirs, none = strings.ReplaceAll(theirs, w, "X"), strings.ReplaceAll(none, w, "X")
		}
	}
	switch {
	case theirs == "":
		t.suite.hole("%s of A is accepted by B's VCM", what)
	case none == "":
		t.suite.hole("%s that never existed is accepted by B's VCM", what)
	case theirs != none:
		t.suite.hole("%s: B's VCM tells A's from one that never existed: %q and %q", what, theirs, none)
	default:
		t.suite.print("isolation: %-34s refused as if it did not exist: %.90s\n", what, strings.ReplaceAll(theirs, "\n", " "))
	}
}

// text is an error for comparison; "" is none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// tokenService: sessions, results, tokens.
func (t *replay) tokenService(ctx context.Context) error {
	accounts, err := t.Accounts(supplyGroup.SGC, 1, 1)
	if err != nil {
		return err
	}
	meter := accounts[0].Config
	at, err := t.a.Client(ctx)
	if err != nil {
		return err
	}
	defer at.Close()
	bt, err := t.b.Client(ctx)
	if err != nil {
		return err
	}
	defer bt.Close()
	id := vending.MessageID()
	issued, err := at.API.IssueCreditToken(ctx, id, at.Token, meter, 0, 10, 0, 0)
	if err != nil {
		return fmt.Errorf("vend as A: %w", err)
	}
	// Positive control: all of it is good at A's.
	if _, err := at.API.FetchTokenResult_(ctx, vending.MessageID(), at.Token, id); err != nil {
		return err
	}
	_, theirs := bt.API.GetStatus(ctx, vending.MessageID(), at.Token)
	_, none := bt.API.GetStatus(ctx, vending.MessageID(), strings.Repeat("A", len(at.Token)))
	t.same("a session", text(theirs), text(none))
	_, theirs = bt.API.FetchTokenResult_(ctx, vending.MessageID(), bt.Token, id)
	_, none = bt.API.FetchTokenResult_(ctx, vending.MessageID(), bt.Token, uuid.NewString())
	t.same("a result", text(theirs), text(none))

	// Both have a key of the supply group, so B can read A's token; what it must
	// not know is that A has issued it, or that B has not: B vends to the same
	// meter at the same minute, from a list of its own.
	v, err := bt.API.VerifyToken(ctx, vending.MessageID(), bt.Token, meter, issued[0].TokenDec)
	if err != nil || v.Token == nil || v.Token.Tid != issued[0].Tid {
		return fmt.Errorf("verification of a token of the same supply group: %v, %v", v, err)
	}
	foreign := *meter
	foreign.Sgc = 654321
	_, theirs = bt.API.IssueCreditToken(ctx, vending.MessageID(), bt.Token, &foreign, 0, 10, 0, 0)
	var e *prismtoken1.ApiException
	if !errors.As(theirs, &e) || e.ECode != "EKeystore.NotFound" {
		t.suite.hole("B vends with a supply group of which it has no key: %v", theirs)
	}
	password, err := t.a.Password()
	if err != nil {
		return err
	}
	theirs = bt.SignIn(ctx, "of-a", password)
	none = bt.SignIn(ctx, "of-nobody", password)
	t.same("a user", text(theirs), text(none), "of-a", "of-nobody")
	return nil
}

// sshKeys: the key of a tenant with a VCM of his own at B's service, against that
// of somebody who has none. The first one has not enrolled yet: his own tool would
// not even ask otherwise.
func (t *replay) sshKeys(ctx context.Context) error {
	file := t.vb.file
	said := map[string]string{}
	for _, who := range []string{"third", "stranger"} {
		if err := t.as(who); err != nil {
			return err
		}
		if who == "third" {
			v, err := t.create(ctx, who, "")
			if err != nil {
				return err
			}
			if err := v.start(ctx); err != nil {
				return err
			}
		}
		// With the services home of A, or an empty one, and B's VCM file: the
		// file is no secret, the key is what counts.
		path := t.Mail("of-b.vcm")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			return err
		}
		if who == "stranger" { // a key of his own, as A has one
			if _, err := t.Request(ctx, "strange"); err != nil {
				return err
			}
		}
		out, err := t.Try(ctx, rig.Tenant, "hsmadmin", "vcm", "enroll", "--config", path, "--maker-root", t.MakerRoot())
		if err != nil {
			return err
		}
		if out.Code == 0 {
			said[who] = ""
			continue
		}
		said[who] = fmt.Sprintf("exit %d %s", out.Code, nonces.ReplaceAllString(out.All, "#"))
	}
	t.same("an SSH key", said["third"], said["stranger"])
	return nil
}

// nonces are what differs from call to call.
var nonces = regexp.MustCompile(`127\.[0-9.]+:[0-9]+->127\.[0-9.]+:[0-9]+|SHA256:[A-Za-z0-9+/]+`)

// files: A's transaction licence and key load file.
func (t *replay) files(ctx context.Context) error {
	if err := t.as("a"); err != nil {
		return err
	}
	klf, err := os.ReadFile(t.Mail("keys.klf"))
	if err != nil {
		return err
	}
	moduleA, err := t.Module()
	if err != nil {
		return err
	}
	if err := t.as("b"); err != nil {
		return err
	}
	keys := func() (string, error) { return t.Run(ctx, rig.Tenant, "ptokenadmin", "vk", "list", "--json") }
	before, err := keys()
	if err != nil {
		return err
	}
	if err := os.WriteFile(t.Mail("of-a.klf"), klf, 0o600); err != nil {
		return err
	}
	theirs, err := t.Try(ctx, rig.Tenant, "ptokenadmin", "kmc", "upload-klf", t.Mail("of-a.klf"))
	if err != nil {
		return err
	}
	after, err := keys()
	if err != nil {
		return err
	}
	if theirs.Code == 0 || before != after {
		t.suite.hole("a KLF for A's module is accepted by B's (exit code %d)", theirs.Code)
	} else {
		t.suite.print("isolation: %-34s refused: %.90s\n", "a key load file", strings.TrimSpace(theirs.All))
	}
	said := map[string]string{}
	for _, module := range []string{moduleA, "99999999"} {
		file := t.Mail("licence-" + module)
		if _, err := t.Run(ctx, rig.Maker, "vendor", "transaction-licence", "--dir", t.Path("maker", "keys"), "--module-id", module,
			"--nonce", "0011223344556677", "--transactions", "10", "--out", file); err != nil {
			return err
		}
		out, err := t.Try(ctx, rig.Tenant, "ptokenadmin", "license", "load", file)
		if err != nil {
			return err
		}
		if out.Code != 0 {
			said[module] = fmt.Sprintf("exit %d %s", out.Code, out.All)
		}
	}
	t.same("a transaction licence", said[moduleA], said["99999999"], moduleA, "99999999", "licence-X")
	return nil
}

// requests: what A has signed for his VCM does nothing to B's.
func (t *replay) requests(ctx context.Context) error {
	for _, id := range []string{t.a.UUID, t.b.UUID} { // properties are changed of VCMs that do not run
		if err := t.provider(ctx, func(h *rig.Hosting) error {
			_, err := h.Stop(ctx, id, true, 10)
			return err
		}); err != nil {
			return err
		}
	}
	said := map[string]string{}
	for _, who := range []string{"a", "stranger"} {
		if err := t.as(who); err != nil {
			return err
		}
		file := t.Mail("rename.req")
		if _, err := t.Run(ctx, rig.Tenant, "hsmadmin", "vcm", "setproperties", "--request-file", file, "--uuid", t.b.UUID, "--name", "taken",
			"--maker-root", t.MakerRoot()); err != nil {
			return err
		}
		request, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		err = t.provider(ctx, func(h *rig.Hosting) error {
			_, err := h.SetProperty(ctx, request, t.b.UUID, "name", "taken")
			return err
		})
		said[who] = nonces.ReplaceAllString(text(err), "#")
	}
	t.same("a request", said["a"], said["stranger"])
	// And one that A has signed for his own VCM, at B's.
	if err := t.as("a"); err != nil {
		return err
	}
	file := t.Mail("own.req")
	if _, err := t.Run(ctx, rig.Tenant, "hsmadmin", "vcm", "setproperties", "--request-file", file, "--uuid", t.a.UUID, "--name", "mine"); err != nil {
		return err
	}
	request, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return t.provider(ctx, func(h *rig.Hosting) error {
		if _, err := h.SetProperty(ctx, request, t.b.UUID, "name", "mine"); err == nil {
			t.suite.hole("A's request for his own VCM changes B's")
		}
		// Positive control.
		_, err := h.SetProperty(ctx, request, t.a.UUID, "name", "mine")
		return err
	})
}
