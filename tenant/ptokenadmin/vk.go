package ptokenadmin

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

type vkJSON struct {
	SGC        int32             `json:"sgc"`
	KRN        int32             `json:"krn"`
	KMC        string            `json:"kmc"`
	Register   int32             `json:"register"`
	Attributes map[string]string `json:"attributes"`
	VendReason string            `json:"vend_reason,omitempty"`
}

func vkOut(v *prismadmin.VendingKey) vkJSON {
	return vkJSON{v.Sgc, v.Krn, v.Kmc, v.RegisterNumber, v.Attributes, v.VendReason}
}

func register(v *prismadmin.VendingKey) string {
	if v.RegisterNumber == 0 {
		return "not loaded"
	}
	return strconv.Itoa(int(v.RegisterNumber))
}

func (t tool) printVK(c *cli.Context, v *prismadmin.VendingKey) error {
	return t.env.Print(c, vkOut(v), func(w io.Writer) error {
		pairs := [][2]string{
			{"SGC", fmt.Sprintf("%06d", v.Sgc)}, {"KRN", strconv.Itoa(int(v.Krn))}, {"KMC", v.Kmc}, {"REGISTER", register(v)},
		}
		for _, name := range slices.Sorted(maps.Keys(v.Attributes)) {
			pairs = append(pairs, [2]string{name, v.Attributes[name]})
		}
		if v.VendReason != "" {
			pairs = append(pairs, [2]string{"CANNOT VEND", v.VendReason})
		}
		console.Fields(w, pairs...)
		return nil
	})
}

// keyArgs reads SGC and KRN.
func keyArgs(args []string) (sgc, krn int32, err error) {
	s, err := strconv.ParseUint(args[0], 10, 31)
	if err != nil || s > 999999 {
		return 0, 0, console.Usagef("SGC %q is no number of at most 6 digits", args[0])
	}
	k, err := strconv.ParseUint(args[1], 10, 31)
	if err != nil || k < 1 || k > 9 {
		return 0, 0, console.Usagef("KRN %q is no digit from 1 to 9", args[1])
	}
	return int32(s), int32(k), nil
}

// forKey is a command about one vending key.
func (t tool) forKey(name, usage, what string, flags []cli.Flag, act func(c *cli.Context, ctx context.Context, p *prismadmin.PrismAdminClient, sgc, krn int32) error) *cli.Command {
	return command(name, usage, []string{"SGC", "KRN"}, flags, func(c *cli.Context, args []string) error {
		sgc, krn, err := keyArgs(args)
		if err != nil {
			return err
		}
		return t.session(c, what, func(ctx context.Context, p *prismadmin.PrismAdminClient) error { return act(c, ctx, p, sgc, krn) })
	})
}
