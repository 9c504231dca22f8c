package ptokenadmin

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// loadStep is how many keys are loaded between two looks at the progress.
const loadStep = 25

func (t tool) kmcLoadAll() *cli.Command {
	return t.forKMC("load-all", "load all vending keys of the KMC's key load file", "load all VKs", nil, t.loadAll)
}

func (t tool) loadAll(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, kmc string) error {
	first, err := p.KmcLoad(ctx, kmc, loadStep)
	if err != nil {
		return err
	}
	bar := t.env.NewProgress(int(first.Loaded+first.Remaining), "loading vending keys of "+kmc)
	defer bar.End()
	loaded, step := int32(0), first
	for {
		loaded += step.Loaded
		bar.Add(int(step.Loaded))
		if step.Failure != "" {
			kind := errkind.Refused
			if strings.Contains(step.Failure, "(code 28)") { // no register is free
				kind = errkind.Limit
			}
			return errkind.Errorf(kind, "%s; %d keys were loaded, %d were not", strings.TrimPrefix(step.Failure, "Failed to load all VKs: "), loaded, step.Remaining)
		}
		if step.Remaining == 0 {
			break
		}
		if step.Loaded == 0 {
			return errkind.Errorf(errkind.Internal, "%d keys are left but none is loaded", step.Remaining)
		}
		if step, err = p.KmcLoad(ctx, kmc, loadStep); err != nil {
			return err
		}
	}
	return t.env.Print(c, map[string]any{"kmc": kmc, "loaded": loaded}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%d vending keys of %s were loaded. End the session with 'ptokenadmin kmc end-session'.\n", loaded, kmc)
		return err
	})
}
