package ptokenadmin

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

type slotJSON struct {
	KMC                string `json:"kmc"`
	KPN                int32  `json:"kpn"`
	State              string `json:"state"`
	Approved           bool   `json:"approved"`
	InModule           bool   `json:"in_module"`
	RequestOutstanding bool   `json:"request_outstanding"`
	TVP                string `json:"tvp,omitempty"`
	KeyActivates       string `json:"key_activates"`
	KeyExpires         string `json:"key_expires"`
	RegistersLoaded    int32  `json:"registers_loaded"`
	KeysInKLF          int32  `json:"keys_in_klf"`
}

func slotOut(s *prismadmin.KekSlot) slotJSON {
	return slotJSON{
		s.Kmc, s.Kpn, s.State, s.Approved, s.InModule, s.RequestOutstanding, s.Tvp, stamp(s.KeyActivates), stamp(s.KeyExpires),
		s.RegistersLoaded, s.KeysInKlf,
	}
}

func (t tool) printSlot(c *cli.Context, s *prismadmin.KekSlot) error {
	out := slotOut(s)
	return t.env.Print(c, out, func(w io.Writer) error {
		state := out.State
		if !out.InModule {
			state = "public key stored, no KEK slot yet"
		}
		pairs := [][2]string{
			{"KMC", out.KMC}, {"KPN", strconv.Itoa(int(out.KPN))}, {"STATE", state}, {"APPROVED", strconv.FormatBool(out.Approved)},
			{"KEY ACTIVATES", out.KeyActivates}, {"KEY EXPIRES", out.KeyExpires},
			{"VENDING KEYS", fmt.Sprintf("%d of %d loaded", out.RegistersLoaded, out.KeysInKLF)},
		}
		if out.RequestOutstanding {
			pairs = append(pairs, [2]string{"VKLOADREQ", out.TVP + " outstanding"})
		}
		console.Fields(w, pairs...)
		return nil
	})
}

// forKMC is a command about one KMC, which need not be named if there is only one.
func (t tool) forKMC(name, usage, what string, flags []cli.Flag, act func(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, kmc string) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "[KMC]", Flags: common(flags...),
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return console.Usagef("%s needs one KMC at most; see '%s --help'", c.Command.HelpName, c.Command.HelpName)
			}
			if strings.HasPrefix(c.Args().First(), "--") {
				return console.Usagef("option %s must come before KMC; see '%s --help'", c.Args().First(), c.Command.HelpName)
			}
			return t.session(c, what, func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
				kmc, err := oneKMC(ctx, p, c.Args().First())
				if err != nil {
					return err
				}
				return act(c, ctx, p, kmc)
			})
		},
	}
}

func oneKMC(ctx context.Context, p *prismadmin.PrismAdminClient, name string) (string, error) {
	if name != "" {
		return name, nil
	}
	slots, err := p.KmcList(ctx)
	if err != nil {
		return "", err
	}
	var names []string
	for _, s := range slots {
		names = append(names, s.Kmc)
	}
	switch len(slots) {
	case 0:
		return "", errkind.Errorf(errkind.NotFound, "no KMC is known; see 'ptokenadmin kmc upload-key'")
	case 1:
		return names[0], nil
	}
	return "", errkind.Errorf(errkind.Invalid, "say which KMC is meant: %s", strings.Join(names, ", "))
}
