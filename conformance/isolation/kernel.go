package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// kernel runs the shipped programs where the kernel lacks one feature: the level
// must fall to what is left, and below the floor nothing may start.
func (s *Suite) kernel(ctx context.Context) error {
	for i, f := range features() {
		want := f.level
		if os.Geteuid() != 0 {
			want = f.nobody
		}
		if want == "" {
			s.print("isolation: without %-18s nothing to take: %s has none\n", f.name, who())
			continue
		}
		if s.Short && i%2 == 1 {
			continue
		}
		bin, err := s.wrapped(s.Bin, fmt.Sprintf("kernel-%d", i), "deny", f.name)
		if err != nil {
			return err
		}
		level, lacking, said, err := s.startOn(ctx, bin, fmt.Sprintf("kernel-%d", i), "process")
		if err != nil {
			return fmt.Errorf("without %s: %w", f.name, err)
		}
		if said != "" || level != want || !slices.Contains(lacking, f.lacks) {
			s.hole("without %s: level %q, want %q; lines lacking: %v; %s", f.name, level, want, lacking, said)
		}
		floor := map[string]string{"rootless": "full", "landlock": "rootless", "process": "landlock"}[want]
		level, _, refusal, err := s.startOn(ctx, bin, fmt.Sprintf("kernel-%d-floor", i), floor)
		if err != nil {
			return fmt.Errorf("without %s, floor %s: %w", f.name, floor, err)
		}
		if refusal == "" || !strings.Contains(refusal, "--isolation-floor") {
			s.hole("without %s a VCM starts at level %q below the floor %s: %s", f.name, level, floor, refusal)
		}
		s.print("isolation: without %-18s level %-9s and refused below the floor %s\n", f.name, want, floor)
	}
	return nil
}

// startOn starts one VCM. refusal is what the orchestrator said if it did not.
func (s *Suite) startOn(ctx context.Context, bin, name, floor string) (level string, lacking []string, refusal string, err error) {
	p, err := open(ctx, bin, s.dir(name), s.log, "--isolation-floor", floor)
	if err != nil {
		return "", nil, "", err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	v, err := p.create(ctx, "one", "")
	if err != nil {
		return "", nil, "", err
	}
	if err := v.start(ctx); err != nil {
		return "", nil, err.Error(), nil
	}
	return v.report.IsolationLevel, v.lacking(), "", nil
}
