package isolation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// cell is how one attempt ended in one row.
type cell struct {
	attempt string
	result  string
	detail  string
}

// outcome is a row that was run.
type outcome struct {
	row
	level   string
	lacking []string // lines of the attacker's report that are not enforced
	cells   []cell
	holes   []string
}

func (o *outcome) hole(format string, args ...any) {
	o.holes = append(o.holes, fmt.Sprintf(format, args...))
}

func (o *outcome) result(attempt string) string {
	for _, c := range o.cells {
		if c.attempt == attempt {
			return c.result
		}
	}
	return ""
}

// run makes a row's attacker and victim and lets the one attack the other.
func (p *platform) run(ctx context.Context, h *host, r row, asRoot bool) (_ *outcome, err error) {
	o := &outcome{row: r}
	attacker, err := p.create(ctx, "attacker", r.without())
	if err != nil {
		return nil, err
	}
	victim, err := p.create(ctx, "victim", r.without())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, attacker.drop(ctx), victim.drop(ctx)) }()
	for _, v := range []*vcm{attacker, victim} {
		if err := v.start(ctx); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(p.log, "row %q\n", r.name)
	for _, c := range attacker.report.Isolation {
		fmt.Fprintf(p.log, "    %-16s %s\n", c.Control, attacker.line(c.Control))
	}
	o.level, o.lacking = attacker.report.IsolationLevel, attacker.lacking()
	for _, a := range attempts() {
		if !a.tried(asRoot) || a.name == "set-uid" && h.args["setuid"] == "" {
			continue
		}
		c, err := p.try(ctx, h, a, attacker, victim)
		if err != nil {
			return nil, err
		}
		o.cells = append(o.cells, c)
		if c.result == killed {
			if err := attacker.restart(ctx); err != nil {
				return nil, err
			}
		}
		if !victim.process.Alive() {
			o.hole("the victim's process ended during %s", a.name)
			if err := victim.restart(ctx); err != nil {
				return nil, err
			}
		}
	}
	o.judge(asRoot)
	return o, nil
}

func (p *platform) try(ctx context.Context, h *host, a attempt, attacker, victim *vcm) (cell, error) {
	before, err := domainName()
	if err != nil {
		return cell{}, err
	}
	result, detail, err := attacker.order(ctx, a.name, h.aim(attacker, victim))
	if err != nil {
		return cell{}, err
	}
	if a.name == "domain-name" && result == allowed {
		effect, err := h.domainName(before)
		if err != nil {
			return cell{}, err
		}
		if !effect {
			result = "its own only"
		}
	}
	if a.name == "bind" && result == allowed && !reachable(ctx, detail) {
		result = "its own only"
	}
	fmt.Fprintf(p.log, "  %-16s %s %s\n", a.name, result, detail)
	return cell{attempt: a.name, result: result, detail: detail}, nil
}

// reachable reports whether the host sees what listens at address.
func reachable(ctx context.Context, address string) bool {
	d := net.Dialer{Timeout: time.Second}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// judge finds what should not have happened.
func (o *outcome) judge(asRoot bool) {
	for _, a := range attempts() {
		got := o.result(a.name)
		switch {
		case got == "":
		case len(o.has) == 0 && a.controls(asRoot) && got != allowed:
			o.hole("%s proves nothing: it failed without any layer, too (%s)", a.name, got)
		case has(o.stops, a.name) && got == allowed && (asRoot || !a.rootOnly || len(o.has) > 3):
			o.hole("%s: %s", a.name, a.about)
		}
	}
	for _, name := range layerNames() {
		claimed := !slices.Contains(o.lacking, name)
		// Whoever is not root, here or in a user namespace, has no capabilities.
		powerless := name == capabilities && !slices.Contains(o.has, user) && (!asRoot || slices.Contains(o.has, ownUID))
		if claimed && !slices.Contains(o.has, name) && !powerless {
			o.hole("the report claims %s, which was left out", name)
		}
		// Alone, some layers lack what they stand on; all together none may be missing.
		if !claimed && o.name == "everything" && slices.Contains(o.has, name) {
			o.hole("the report lacks %s", name)
		}
	}
	if o.lacks != "" && !slices.Contains(o.lacking, o.lacks) {
		o.hole("the report does not lack %s", o.lacks)
	}
}

// Matrix runs the rows as the calling user.
func (s *Suite) matrix(ctx context.Context) error {
	p, err := open(ctx, s.hostile, s.dir("matrix"), s.log, "--isolation-floor", "process")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	h, err := p.host()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	asRoot := os.Geteuid() == 0
	var done []*outcome
	for _, r := range rows(asRoot, p.cgroups(ctx)) {
		if s.Short && !slices.Contains([]string{"nothing", "only " + landlock, "only " + syscalls, "all but " + landlock, "everything"}, r.name) {
			continue
		}
		if len(s.Rows) > 0 && !has(s.Rows, r.name) {
			continue
		}
		if r.reason != "" {
			done = append(done, &outcome{row: r})
			continue
		}
		o, err := p.run(ctx, h, r, asRoot)
		if err != nil {
			return fmt.Errorf("row %q: %w", r.name, err)
		}
		for _, hole := range o.holes {
			s.hole("with %s: %s", r.name, hole)
		}
		done = append(done, o)
	}
	s.printMatrix(done)
	if !s.Short && len(s.Rows) == 0 {
		s.checkLayersMatter(done, asRoot)
	}
	return err
}

// checkLayersMatter: a layer that stops nothing by itself is not tested by this
// suite, unless root is concerned, from whom only other layers protect.
func (s *Suite) checkLayersMatter(done []*outcome, asRoot bool) {
	free := done[0]
	for _, o := range done {
		name, only := strings.CutPrefix(o.name, "only ")
		if !only || o.reason != "" {
			continue
		}
		var stopped []string
		for _, c := range o.cells {
			if c.result != allowed && free.result(c.attempt) == allowed {
				stopped = append(stopped, c.attempt)
			}
		}
		excused := asRoot && (name == dumpable || name == noNewPrivs) || !asRoot && (name == uts || name == capabilities)
		if len(stopped) == 0 && !excused {
			s.hole("%s stops nothing by itself: no attempt tests it", name)
		}
	}
}
