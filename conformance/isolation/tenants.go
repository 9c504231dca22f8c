package isolation

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
)

// tenants takes what belongs to tenant A to the VCM of tenant B: it must be
// refused there in the very bytes in which something is refused that nobody ever
// had, and neither VCM may be the worse for it.
func (s *Suite) tenants(ctx context.Context) (err error) {
	p, err := open(ctx, s.programs, s.dir("tenants"), s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	t := &replay{suite: s, platform: p}
	if t.vb, t.b, err = p.equip(ctx, "b"); err != nil {
		return err
	}
	// C stands for what is not there: his VCM is deleted before anything is tried.
	vc, _, err := p.equip(ctx, "c")
	if err != nil {
		return err
	}
	if err := vc.drop(ctx); err != nil {
		return err
	}
	// A has a supply group that B has not.
	if _, err := p.Run(ctx, rig.KMC, "kmc", "sgc", "add", "--dir", p.Path("kmc", "centre"), "--sgc", groupOfA, "--bdt", "2014", "--dkg", "4", "--sgn", "OF-A"); err != nil {
		return err
	}
	if t.va, t.a, err = p.equip(ctx, "a"); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{t.sessions, t.users, t.tokens, t.sshKeys, t.serviceKeys, t.keyLoads, t.licence, t.properties, t.starts} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	t.print()
	return nil
}

// groupOfA is a supply group of A alone, groupOfNone one that nobody has.
const (
	groupOfA    = "222333"
	groupOfNone = "333222"
)

// replay is A's things at B.
type replay struct {
	suite *Suite
	*platform
	a, b   *rig.VCM
	va, vb *vcm
	rows   []replayed
}

// replayed is one thing of A's.
type replayed struct {
	what string
	// before and after are whether it is good at A's own VCM, and, afterwards,
	// whether B's works as before.
	before, after error
	// theirs and none are what B's VCM says to it and to one that is nobody's; ""
	// is a yes.
	theirs, none string
	verdict      string
}

// record judges a thing. varying are the words in which the answers may differ,
// because the caller said them himself.
func (t *replay) record(r replayed, varying ...string) {
	theirs, none := r.theirs, r.none
	for _, w := range varying {
		if w != "" {
			theirs, none = strings.ReplaceAll(theirs, w, "X"), strings.ReplaceAll(none, w, "X")
		}
	}
	hole := func(format string, args ...any) {
		r.verdict = "HOLE"
		t.suite.hole("tenants: %s: %s", r.what, fmt.Sprintf(format, args...))
	}
	r.verdict = "the same bytes"
	if r.before != nil {
		hole("it proves nothing, for it is no good at A's either: %v", r.before)
	}
	if r.after != nil {
		hole("afterwards something is not as before: %v", r.after)
	}
	switch {
	case r.theirs == "":
		hole("of A it is accepted by B's VCM")
	case r.none == "":
		hole("that is nobody's is accepted by B's VCM")
	case theirs != none:
		hole("B's VCM tells A's from nobody's: %q and %q", theirs, none)
	}
	r.theirs = strings.Join(strings.Fields(theirs), " ")
	t.rows = append(t.rows, r)
}

func (t *replay) print() {
	t.suite.print("\nWhat is A's at B's VCM, as %s:\n", who())
	word := func(err error) string {
		if err != nil {
			return "no good"
		}
		return "good"
	}
	t.suite.print("  %-38s %-13s %-46s %-15s %s\n", "", "before, at A", "at B", "nobody's", "after, at both")
	for _, r := range t.rows {
		answer := r.theirs
		if len(answer) > 44 {
			answer = answer[:43] + "…"
		}
		t.suite.print("  %-38s %-13s %-46s %-15s %s\n", r.what, word(r.before), answer, r.verdict, word(r.after))
	}
	t.suite.print("\n")
}

// text is an error for comparison; "" is none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// said is a command's outcome for comparison; "" is success.
func said(out rig.Outcome) string {
	if out.Code == 0 {
		return ""
	}
	return fmt.Sprintf("exit %d %s", out.Code, nonces.ReplaceAllString(out.All, "#"))
}

// vends has both issue a token.
func (t *replay) vends(ctx context.Context) error {
	for name, v := range map[string]*rig.VCM{"A": t.a, "B": t.b} {
		accounts, err := t.Accounts(supplyGroup.SGC, 1, 1)
		if err != nil {
			return err
		}
		c, err := v.Client(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		_, err = c.API.IssueCreditToken(ctx, vending.MessageID(), c.Token, accounts[0].Config, 0, 10, 0, 0)
		if err = errors.Join(err, c.Close()); err != nil {
			return fmt.Errorf("%s does not vend: %w", name, err)
		}
	}
	return nil
}
