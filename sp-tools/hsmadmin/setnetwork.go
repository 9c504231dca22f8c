package hsmadmin

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func (t tool) networkDefault() *cli.Command {
	return &cli.Command{
		Name: "default", Usage: "use addresses that only this host can reach",
		Flags: common(esnFlag()),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			return t.setNetwork(c, &setup.Network{Kind: "default"})
		},
	}
}

// networkStatic is ipv4static or ipv6static.
func (t tool) networkStatic(kind, family string) *cli.Command {
	return &cli.Command{
		Name: kind, Usage: "set the " + family + " network on which VCMs are created",
		Flags: common(
			&cli.StringFlag{Name: "address", Usage: family + " address and network mask in CIDR form", Required: true},
			&cli.StringFlag{Name: "gateway", Usage: family + " address of the network's gateway", Required: true},
			esnFlag(),
		),
		Action: func(c *cli.Context) error {
			if _, err := console.NArgs(c); err != nil {
				return err
			}
			prefix, err := netip.ParsePrefix(c.String("address"))
			if err != nil || prefix.Addr().Is4() != (family == "IPv4") {
				return console.Usagef("--address %q is no %s address with a mask, like %s", c.String("address"), family, example(family))
			}
			gateway, err := netip.ParseAddr(c.String("gateway"))
			if err != nil || gateway.Is4() != prefix.Addr().Is4() {
				return console.Usagef("--gateway %q is no %s address", c.String("gateway"), family)
			}
			if !prefix.Contains(gateway) {
				return console.Usagef("the gateway %s is outside the network %s", gateway, prefix.Masked())
			}
			return t.setNetwork(c, &setup.Network{Kind: kind, Address: prefix.String(), Gateway: gateway.String()})
		},
	}
}

func example(family string) string {
	if family == "IPv4" {
		return "192.0.2.0/24"
	}
	return "2001:db8::/64"
}

func (t tool) setNetwork(c *cli.Context, n *setup.Network) error {
	k, err := t.begin(c)
	if err != nil {
		return err
	}
	u, err := k.one()
	if err != nil {
		return err
	}
	err = k.onSetup(u, func(ctx context.Context, s *setup.SetupClient) error { return s.SetNetwork(ctx, n) })
	if err != nil {
		return console.Failed("set the network", err)
	}
	_, err = fmt.Fprintf(t.env.Stdout, "The network of HSM %s is set. It takes effect with 'hsmadmin reset'.\n", u.ESN)
	return err
}
