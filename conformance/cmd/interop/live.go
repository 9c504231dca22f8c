package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/tesserae-hsm/tesserae/conformance/interop"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// row is one client family's outcome.
type row struct {
	name     string
	walk     []interop.Step
	examples []interop.Step
	wrong    []string
	seconds  float64
}

// live starts a platform from the binaries in bin, runs every client against its
// VCM, has a virtual meter accept what the examples vended, and prints a table.
func live(ctx context.Context, env *console.Env, bin, examples string, cfg interop.Config) (err error) {
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(bin, "vcmd")); err != nil {
		return console.Usagef("--bin holds no platform (%w); 'make build' makes one", err)
	}
	dir, err := os.MkdirTemp("", "tess-io-")
	if err != nil {
		return err
	}
	var said bytes.Buffer
	r := rig.New(bin, dir, &said)
	defer func() {
		if stop := r.Stop(); err != nil || stop != nil {
			err = fmt.Errorf("%w\nthe platform's state and logs stay in %s", errors.Join(err, stop), dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	groups := []rig.SupplyGroup{{SGC: fmt.Sprint(cfg.Meters.SGC), DKG: "04", Name: "from"}}
	if cfg.Meters.ToSGC != cfg.Meters.SGC {
		groups = append(groups, rig.SupplyGroup{SGC: fmt.Sprint(cfg.Meters.ToSGC), DKG: "04", Name: "to"})
	}
	v, err := r.Full(ctx, rig.Plan{Name: "interop", Groups: groups})
	if err != nil {
		return fmt.Errorf("start a platform: %w\n%s", err, said.String())
	}
	cfg.Address, cfg.CA, cfg.User, cfg.PasswordFile = v.Address, v.CA, v.User, v.Secret

	var rows []row
	for _, name := range families(cfg.Languages) {
		rows = append(rows, runFamily(ctx, cfg, examples, name))
		fmt.Fprintf(env.Stderr, "%s: %.1f s\n", name, rows[len(rows)-1].seconds)
	}
	if err := acceptAll(ctx, r, cfg.Meters, rows); err != nil {
		return err
	}
	return report(env, rows)
}

// families are the languages asked for; an example alone is one too.
func families(asked []string) []string {
	out := slices.Clone(asked)
	for _, name := range interop.ExampleNames() {
		if !slices.Contains(out, name) && !slices.Contains(interop.Known(), name) {
			out = append(out, name)
		}
	}
	return out
}

func runFamily(ctx context.Context, cfg interop.Config, examples, name string) row {
	out := row{name: name}
	start := time.Now()
	if slices.Contains(interop.Known(), name) {
		var lines bytes.Buffer
		cfg.Languages, cfg.Out = []string{name}, &lines
		err := interop.Run(ctx, cfg)
		for line := range strings.Lines(lines.String()) {
			var s interop.Step
			if bad := json.Unmarshal([]byte(line), &s); bad != nil {
				err = errors.Join(err, bad)
			}
			out.walk = append(out.walk, s)
		}
		out.note(out.walk, err)
	}
	if interop.ExampleSource(name) != "" {
		var err error
		out.examples, err = cfg.RunExample(ctx, examples, name)
		out.note(out.examples, err)
	}
	out.seconds = time.Since(start).Seconds()
	return out
}

// note keeps what went wrong.
func (r *row) note(steps []interop.Step, err error) {
	for _, s := range steps {
		if !s.OK {
			r.wrong = append(r.wrong, s.Step+": "+s.Detail)
		}
	}
	if err != nil && len(r.wrong) == 0 {
		r.wrong = append(r.wrong, err.Error())
	}
}

// acceptAll enters every token of the examples into a virtual meter, which holds
// only its own key: a duplicate or a wrong digit is rejected.
func acceptAll(ctx context.Context, r *rig.Rig, m interop.Meters, rows []row) error {
	key, state := r.Mail("vending-key"), r.Path("customer", "meter")
	sgc, krn := fmt.Sprint(m.SGC), fmt.Sprint(m.KRN)
	if _, err := r.Run(ctx, rig.KMC, "kmc", "key", "export", "--dir", r.Path("kmc", "centre"), "--sgc", sgc, "--krn", krn,
		"--bdt", "2014", "--out", key); err != nil {
		return err
	}
	if _, err := r.Run(ctx, rig.Customer, "meter", "init", "--state", state, "--drn", m.DRN11, "--ea", "11", "--sgc", sgc, "--krn", krn,
		"--ti", fmt.Sprint(m.TI), "--base-date", "2014", "--dkga", "04", "--vending-key-file", key); err != nil {
		return err
	}
	for i := range rows {
		for _, s := range rows[i].examples {
			for _, token := range s.Tokens {
				if _, err := r.Run(ctx, rig.Customer, "meter", "enter", "--state", state, token); err != nil {
					rows[i].wrong = append(rows[i].wrong, s.Step+": the meter does not accept the token: "+err.Error())
				}
			}
		}
	}
	return nil
}

func report(env *console.Env, rows []row) error {
	t := table.NewWriter()
	t.SetOutputMirror(env.Stdout)
	t.SetStyle(table.StyleLight)
	t.AppendHeader(table.Row{"client", "steps", "vend", "lost answer", "refusal", "seconds", "result"})
	var failed []string
	for _, r := range rows {
		result := "ok"
		if len(r.wrong) > 0 {
			result, failed = "FAILED", append(failed, r.name)
		}
		t.AppendRow(table.Row{r.name, count(r.walk), verdict(r.examples, "vend"), verdict(r.examples, "lostAnswer"), verdict(r.examples, "refusal"),
			fmt.Sprintf("%.1f", r.seconds), result})
	}
	t.Render()
	for _, r := range rows {
		for _, w := range r.wrong {
			fmt.Fprintf(env.Stdout, "%s: %s\n", r.name, w)
		}
	}
	if len(failed) > 0 {
		return errkind.Errorf(errkind.Refused, "%d of %d client families failed: %s", len(failed), len(rows), strings.Join(failed, ", "))
	}
	fmt.Fprintf(env.Stdout, "interop: ok, %d client families\n", len(rows))
	return nil
}

func count(steps []interop.Step) string {
	if len(steps) == 0 {
		return "-"
	}
	good := 0
	for _, s := range steps {
		if s.OK {
			good++
		}
	}
	return fmt.Sprintf("%d of %d", good, len(steps))
}

func verdict(steps []interop.Step, name string) string {
	for _, s := range steps {
		if s.Step != name {
			continue
		}
		if s.OK {
			return "ok"
		}
		return "FAILED"
	}
	return "-"
}
