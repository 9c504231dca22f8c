package scale

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// report prints figures as they come and remembers which were over their bound.
type report struct {
	out  io.Writer
	over []string
}

func (p *report) line(mark, what, format string, args ...any) {
	fmt.Fprintf(p.out, "scale %-28s %s%s\n", what, fmt.Sprintf(format, args...), mark)
}

// bound prints a figure beside its budget.
func (p *report) bound(what string, got, most float64, unit string) {
	mark := ""
	if got > most {
		mark = "  OVER BUDGET"
		p.over = append(p.over, what)
	}
	p.line(mark, what, "%.3g %s, budget %.3g %s", got, unit, most, unit)
}

// OverBudget is a run in which everything worked and some figures, which are
// named, were too high.
type OverBudget []string

func (o OverBudget) Error() string { return "over budget: " + strings.Join(o, ", ") }

func (p *report) verdict() error {
	if len(p.over) > 0 {
		return OverBudget(p.over)
	}
	return nil
}

const mib = 1 << 20

// idle measures what VCMs cost that nobody uses. A moment passes first, in which
// they sign their logs.
func (r *run) idle(ctx context.Context) error {
	select {
	case <-time.After(3 * time.Second):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := r.use(ctx); err != nil {
		return err
	}
	before, err := processorTime(r.daemons())
	if err != nil {
		return err
	}
	select {
	case <-time.After(r.Idle):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := processorTime(r.daemons())
	if err != nil {
		return err
	}
	used := after.minus(before)
	perCent := func(d time.Duration) float64 { return 100 * d.Seconds() / r.Idle.Seconds() }
	// A clock is read every minute, and the kernel counts in ticks of 10 ms.
	r.report.bound("idle CPU of the VCMs", perCent(used.vcms), 2+5*float64(r.N)/1000, "% of a core")
	r.report.line("", "idle CPU of the daemons", "%.1f %% of a core", perCent(used.orchestratord+used.hsmd))
	return nil
}

// use prints the memory in use.
func (r *run) use(context.Context) error {
	m, err := memory(r.daemons())
	if err != nil {
		return err
	}
	if m.Processes != r.N {
		return fmt.Errorf("%d VCMs have a process, not %d", m.Processes, r.N)
	}
	n := float64(r.N) * mib
	r.report.line("", "memory of a VCM", "%.2f MiB private, %.2f MiB PSS, %.2f MiB page tables; daemons %.0f MiB",
		float64(m.Private)/n, float64(m.PSS)/n, float64(m.PageTables)/n, float64(m.Daemons)/mib)
	r.report.bound("memory system-wide / N", float64(r.before-m.Available)/n, 8, "MiB")
	return nil
}

// ask times list and stats, over a connection and as commands.
func (r *run) ask(ctx context.Context) error {
	h, err := r.fleet.direct.Dial(ctx)
	if err != nil {
		return err
	}
	defer h.Close()
	const times = 5
	for _, q := range []struct {
		verb string
		most float64
		do   func() (int, error)
	}{
		{"list", 0.2, func() (int, error) { all, err := h.ListVcms(ctx, false); return len(all), err }},
		{"stats", 1, func() (int, error) {
			all, err := h.Stats(ctx, "")
			n := 0
			for _, s := range all {
				if s.Memory > 0 && s.Connections >= 0 {
					n++
				}
			}
			return n, err
		}},
	} {
		var took []time.Duration
		for range times {
			began := time.Now()
			n, err := q.do()
			if err != nil || n != r.N {
				return fmt.Errorf("%s tells of %d VCMs: %w", q.verb, n, err)
			}
			took = append(took, time.Since(began))
		}
		r.report.bound(q.verb+", call", median(took).Seconds(), q.most, "s")
	}
	return r.askTools(ctx)
}

// askTools gives the orchestrator service back to the tools for a moment.
func (r *run) askTools(ctx context.Context) error {
	if err := r.rig.EnrolProvider(ctx); err != nil {
		return err
	}
	for _, q := range []struct {
		verb string
		most float64
	}{{"list", 0.2}, {"stats", 1}} {
		var took []time.Duration
		for range 5 {
			began := time.Now()
			out, err := r.rig.Run(ctx, rig.Provider, "vcmadmin", q.verb)
			if err != nil {
				return err
			}
			took = append(took, time.Since(began))
			for _, t := range r.tenants {
				if !strings.Contains(out, t.uuid) {
					return fmt.Errorf("vcmadmin %s does not tell of VCM %s", q.verb, t.uuid)
				}
			}
		}
		r.report.bound("vcmadmin "+q.verb, median(took).Seconds(), q.most, "s")
	}
	return r.fleet.direct.Take(ctx)
}
