package hsmadmin

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
)

func (t tool) fet() *cli.Command {
	return &cli.Command{
		Name: "fet", Usage: "apply a feature licence to an HSM", ArgsUsage: "FILENAME",
		Flags: common(esnFlag()),
		Action: t.with(func(k *call, args []string) error {
			file, err := t.env.ReadFile(args[0], armor.MaxSize)
			if err != nil {
				return err
			}
			return console.Failed("apply the licence", k.applyLicence(file))
		}, "FILENAME"),
	}
}

func (k *call) applyLicence(file []byte) error {
	licence, err := licensing.InspectLicence(file) // the unit verifies; this finds the unit
	if err != nil {
		return err
	}
	if esn := k.c.String("esn"); esn != "" && !strings.EqualFold(esn, licence.ESN) {
		return errkind.Errorf(errkind.Refused, "the licence is for HSM %s, not for %s", licence.ESN, esn)
	}
	units, err := k.units()
	if err != nil {
		return err
	}
	for _, u := range units {
		if u.ESN != licence.ESN {
			continue
		}
		return k.onSetup(u, func(ctx context.Context, s *setup.SetupClient) error {
			result, err := s.ApplyLicence(ctx, file)
			if err != nil {
				return err
			}
			out := struct {
				ESN      string   `json:"esn"`
				Type     string   `json:"type"`
				Value    string   `json:"value"`
				Warnings []string `json:"warnings,omitempty"`
			}{u.ESN, result.Type, result.Value, result.Warnings}
			return k.env.Print(k.c, out, func(w io.Writer) error {
				for _, text := range result.Warnings {
					fmt.Fprintf(w, "WARNING: %s\n", text)
				}
				_, err := fmt.Fprintf(w, "Licence %s = %s is applied to HSM %s.\n", result.Type, result.Value, u.ESN)
				return err
			})
		})
	}
	return errkind.Errorf(errkind.NotFound, "the licence is for HSM %s, which is not enrolled on this host", licence.ESN)
}
