package vcmadmin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
)

// watchPause is how often list --watch looks.
const watchPause = time.Second

func (t tool) list() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list the VCMs",
		Flags: common(
			esnFlag("list only the VCMs on the HSM with this ESN"),
			&cli.BoolFlag{Name: "active", Usage: "list only VCMs that are running"},
			&cli.BoolFlag{Name: "watch", Usage: "print the list again whenever it changes, until interrupted"},
		),
		Action: t.with(func(k *call, _ []string) error {
			if k.c.Bool("watch") {
				return k.watch()
			}
			return k.printList(t.env.Stdout)
		}),
	}
}

func (k *call) printList(w io.Writer) error {
	vcms, answered, missing := k.vcms(k.c.Bool("active"))
	if !answered {
		return console.Failed("list VCMs", missing)
	}
	out := make([]vcmJSON, len(vcms))
	rows := make([][]string, len(vcms))
	for i, v := range vcms {
		out[i] = toJSON(v)
		rows[i] = []string{v.Uuid, v.Properties.Name, v.Esn, v.State, v.Properties.IpAddress, flags(v.Properties), orElse(v.IsolationLevel, "-")}
	}
	env := *k.env
	env.Stdout = w
	err := env.Print(k.c, out, func(w io.Writer) error {
		console.Table(w, []string{"UUID", "NAME", "ESN", "STATE", "IP ADDRESS", "PROPERTIES", "ISOLATION"}, rows)
		return nil
	})
	if err != nil {
		return err
	}
	return console.Failed("list all VCMs", missing)
}

// vcms lists those of every selected unit that answered, ordered by ESN, name and
// UUID.
func (k *call) vcms(active bool) (vcms []*orchestrator.Vcm, answered bool, err error) {
	seen := map[string]bool{}
	answered, err = k.each(func(ctx context.Context, h *platform.Hosting) error {
		some, err := h.ListVcms(ctx, active)
		for _, v := range some {
			if !seen[v.Uuid] {
				seen[v.Uuid] = true
				vcms = append(vcms, v)
			}
		}
		return err
	})
	slices.SortFunc(vcms, func(a, b *orchestrator.Vcm) int {
		return cmp.Or(cmp.Compare(a.Esn, b.Esn), cmp.Compare(a.Properties.Name, b.Properties.Name), cmp.Compare(a.Uuid, b.Uuid))
	})
	return vcms, answered, err
}

// watch prints the list at each change until the command is interrupted. A unit
// that is away for a while does not end it.
func (k *call) watch() error {
	var last []byte
	var trouble string // the errors that were told last
	tell := k.aside
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	for {
		var now bytes.Buffer
		var errs []error
		k.aside = func(err error) { errs = append(errs, err) }
		err := k.printList(&now)
		if errors.Is(k.ctx.Err(), context.Canceled) {
			return nil
		}
		if now.Len() > 0 && !bytes.Equal(last, now.Bytes()) {
			last = bytes.Clone(now.Bytes())
			if _, err := k.env.Stdout.Write(last); err != nil {
				return err
			}
		}
		over := err != nil && (last == nil || !errkind.Is(err, errkind.Unavailable))
		if err != nil && !over {
			errs = append(errs, err)
		}
		if text := fmt.Sprint(errs); text != trouble {
			trouble = text
			for _, err := range errs {
				tell(err)
			}
		}
		if over {
			return err
		}
		select {
		case <-k.ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
