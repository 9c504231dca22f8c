package vcmadmin

import (
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
)

// deed is what a command does to each VCM it was given; it returns the VCM as
// it is afterwards, nil if it is no more.
type deed func(ctx context.Context, h *platform.Hosting, v *orchestrator.Vcm) (*orchestrator.Vcm, error)

type outcome struct {
	UUID  string `json:"uuid"`
	Name  string `json:"name,omitempty"`
	State string `json:"state,omitempty"`
	Error string `json:"error,omitempty"`
}

// act does one thing to every VCM named on the command line. A failure does not
// keep the others from being tried.
func (k *call) act(verb, done string, do deed) error {
	ids := k.c.Args().Slice()
	if len(ids) == 0 {
		return console.Usagef("%s needs at least one UUID; see '%s --help'", k.c.Command.HelpName, k.c.Command.HelpName)
	}
	for _, id := range ids {
		if _, err := console.UUID(id); err != nil {
			return err
		}
	}
	bar := k.env.NewProgress(len(ids), verb)
	var outcomes []outcome
	var first error
	failures := 0
	for _, id := range ids {
		out := outcome{UUID: id}
		err := k.owner(id, func(ctx context.Context, h *platform.Hosting, v *orchestrator.Vcm) error {
			out.UUID, out.Name = v.Uuid, v.Properties.Name
			after, err := do(ctx, h, v)
			if err != nil {
				return err
			}
			out.State = "deleted"
			if after != nil {
				out.State = after.State
			}
			return nil
		})
		if err != nil {
			err = console.Failed(verb+" VCM "+out.UUID, err)
			out.Error = err.Error()
			failures++
			if first == nil {
				first = err
			}
		}
		outcomes = append(outcomes, out)
		bar.Add(1)
	}
	bar.End()
	if len(ids) == 1 {
		if first != nil {
			return first
		}
		return k.env.Print(k.c, outcomes[0], func(w io.Writer) error { return sayDone(w, outcomes[0], done) })
	}
	err := k.env.Print(k.c, outcomes, func(w io.Writer) error {
		for _, o := range outcomes {
			if o.Error != "" {
				continue // on standard error
			}
			if err := sayDone(w, o, done); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || first == nil {
		return err
	}
	for _, o := range outcomes {
		if o.Error != "" && o.Error != first.Error() {
			fmt.Fprintf(k.env.Stderr, "ERROR: %s\n", o.Error)
		}
	}
	return errkind.Errorf(errkind.Of(first), "%d of %d failed; the first one: %w", failures, len(ids), first)
}

func sayDone(w io.Writer, o outcome, done string) error {
	_, err := fmt.Fprintf(w, "VCM %s (%s) %s.\n", o.UUID, orElse(o.Name, "no name"), done)
	return err
}

// uuids is how usage names one or more VCMs.
const uuids = "UUID..."

func noOptionsAfter(c *cli.Context) error {
	for _, a := range c.Args().Slice() {
		if len(a) > 1 && a[0] == '-' {
			return console.Usagef("option %s must come before UUID; see '%s --help'", a, c.Command.HelpName)
		}
	}
	return nil
}
