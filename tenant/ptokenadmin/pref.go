package ptokenadmin

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

type prefJSON struct {
	Name         string `json:"name"`
	Value        string `json:"value"`
	Default      string `json:"default"`
	Type         string `json:"type"`
	Range        string `json:"range"`
	Description  string `json:"description"`
	ChangeableBy string `json:"changeable_by"`
}

func prefOut(p *prismadmin.Preference) prefJSON {
	return prefJSON{p.Name, p.Value, p.DefaultValue, p.Type, p.Range, p.Description, p.ChangeableBy}
}

func (t tool) prefList() *cli.Command {
	flags := []cli.Flag{&cli.StringFlag{Name: "prefix", Usage: "only preferences whose names begin with this"}}
	return command("list", "list the preferences", nil, flags, func(c *cli.Context, _ []string) error {
		return t.session(c, "list the preferences", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			prefs, err := p.PrefList(ctx, c.String("prefix"))
			if err != nil {
				return err
			}
			out := make([]prefJSON, len(prefs))
			rows := make([][]string, len(prefs))
			for i, v := range prefs {
				out[i] = prefOut(v)
				rows[i] = []string{v.Name, v.Value, v.DefaultValue, v.Range, v.ChangeableBy, v.Description}
			}
			return t.env.Print(c, out, func(w io.Writer) error {
				console.Table(w, []string{"PREFERENCE", "VALUE", "DEFAULT", "RANGE", "CHANGED BY", "MEANING"}, rows)
				return nil
			})
		})
	})
}

func (t tool) prefSet() *cli.Command {
	return command("set", "set a preference", []string{"NAME", "VALUE"}, nil, func(c *cli.Context, args []string) error {
		return t.session(c, "set the preference", func(ctx context.Context, p *prismadmin.PrismAdminClient) error {
			v, err := p.PrefSet(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			return t.env.Print(c, prefOut(v), func(w io.Writer) error {
				console.Fields(w, [2]string{v.Name, v.Value})
				return nil
			})
		})
	})
}
