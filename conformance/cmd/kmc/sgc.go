package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func sgcCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:        "sgc",
		Usage:       "supply groups and their vending keys",
		Subcommands: []*cli.Command{sgcAddCommand(env), sgcListCommand(env)},
	}
}

// keyFlags name a vending key.
func keyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "sgc", Usage: "supply group `CODE`, up to six digits"},
		&cli.IntFlag{Name: "krn", Value: 1, Usage: "key revision number, 1 to 9"},
		&cli.IntFlag{Name: "bdt", Usage: "base date: 1993, 2014 or 2035"},
	}
}

func sgcFlag(c *cli.Context) (int, error) {
	n, err := strconv.Atoi(c.String("sgc"))
	if err != nil || len(c.String("sgc")) > 6 || n < 0 {
		return 0, console.Usagef("--sgc %q is not a supply group code of up to six digits", c.String("sgc"))
	}
	return n, nil
}

// limitFlag reads a limit: a number, or "unlimited".
func limitFlag(c *cli.Context, name string, otherwise uint32) (uint32, error) {
	text := c.String(name)
	switch text {
	case "":
		return otherwise, nil
	case "unlimited":
		return keyload.Unlimited, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || uint32(n) == keyload.Unlimited {
		return 0, console.Usagef("--%s %q is neither a number below %d nor 'unlimited'", name, text, keyload.Unlimited)
	}
	return uint32(n), nil
}

// ownerFlags are the attributes that a key's owner may change later.
func ownerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "ken", Usage: "key expiry number, 0 to 255 (default: 255, never)"},
		&cli.StringFlag{Name: "ulm", Usage: "unit limit for a module, in 0.1 kWh and so on, or 'unlimited' (the default)"},
		&cli.StringFlag{Name: "clm", Usage: "currency limit for a module, in 0.00001 of the base currency, or 'unlimited' (the default)"},
		&cli.StringFlag{Name: "sbm", Usage: "credit-subclass bitmap, four hex digits (default: FFFF)"},
		&cli.StringFlag{Name: "act", Usage: "`TIME` from which the key may be used (default: yesterday)"},
		&cli.StringFlag{Name: "exp", Usage: "last `DAY` on which the KMC issues the key (default: none)"},
		&cli.StringFlag{Name: "iut", Usage: "`TIME` until which a module may use the key; instead of --refresh"},
		&cli.StringFlag{Name: "refresh", Usage: fmt.Sprintf("refresh period in days: how long after its issue a module may use the key (default: %d)", kmc.DefaultRefresh)},
		&cli.StringFlag{Name: "clu", Usage: "cluster, 0 to 9 (default: 0)"},
		&cli.StringFlag{Name: "sgn", Usage: "supply group `NAME`, up to 40 characters"},
	}
}

// readOwner applies the owner's flags that are given to g.
func readOwner(c *cli.Context, g *kmc.Group) (err error) {
	if g.KEN, err = numberFlag(c, "ken", 255, g.KEN); err != nil {
		return err
	}
	if g.ULM, err = limitFlag(c, "ulm", g.ULM); err != nil {
		return err
	}
	if g.CLM, err = limitFlag(c, "clm", g.CLM); err != nil {
		return err
	}
	if text := c.String("sbm"); text != "" {
		n, err := strconv.ParseUint(text, 16, 16)
		if err != nil || len(text) != 4 {
			return console.Usagef("--sbm %q is not four hex digits", text)
		}
		g.SBM = uint16(n)
	}
	if g.ACT, err = instantFlag(c, "act", g.ACT); err != nil {
		return err
	}
	if g.EXP, err = dayFlag(c, "exp", g.EXP); err != nil {
		return err
	}
	if c.IsSet("iut") && c.IsSet("refresh") {
		return console.Usagef("give --iut or --refresh, not both")
	}
	if c.IsSet("refresh") {
		g.IUT = time.Time{}
	}
	if g.IUT, err = instantFlag(c, "iut", g.IUT); err != nil {
		return err
	}
	if g.Refresh, err = numberFlag(c, "refresh", 36500, g.Refresh); err != nil {
		return err
	}
	if g.CLU, err = numberFlag(c, "clu", 9, g.CLU); err != nil {
		return err
	}
	if c.IsSet("sgn") {
		g.SGN = c.String("sgn")
	}
	return nil
}

func numberFlag(c *cli.Context, name string, highest, otherwise int) (int, error) {
	text := c.String(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > highest {
		return 0, console.Usagef("--%s %q is not a number from 0 to %d", name, text, highest)
	}
	return n, nil
}

func sgcAddCommand(env *console.Env) *cli.Command {
	flags := append(keyFlags(), []cli.Flag{
		dirFlag(), console.JSONFlag(),
		&cli.StringFlag{Name: "ktc", Value: "VUDK", Usage: "key type: VDDK, VUDK or VCDK"},
		&cli.StringFlag{Name: "dkg", Value: "04", Usage: "decoder-key generation algorithm: 01, 02 or 04"},
		&cli.StringFlag{Name: "key-file", Usage: "`FILE` with a known test key, one line of hex"},
		&cli.StringFlag{Name: "key", Usage: "a known test key in `HEX`; visible to other users of this machine, so for test keys only"},
	}...)
	return &cli.Command{
		Name:   "add",
		Usage:  "add a vending key, drawn at random or imported",
		Flags:  append(flags, ownerFlags()...),
		Action: func(c *cli.Context) error { return runSGCAdd(env, c) },
	}
}

func runSGCAdd(env *console.Env, c *cli.Context) error {
	k, err := open(c)
	if err != nil {
		return err
	}
	g := kmc.Group{
		KRN: c.Int("krn"), BDT: c.Int("bdt"), KTC: c.String("ktc"), KEN: 255, SBM: 0xFFFF,
		ULM: keyload.Unlimited, CLM: keyload.Unlimited, Refresh: kmc.DefaultRefresh,
		ACT: env.Clock.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -1),
	}
	if g.BDT == 0 {
		g.BDT = 2014
	}
	if g.SGC, err = sgcFlag(c); err != nil {
		return err
	}
	if g.DKG, err = strconv.Atoi(c.String("dkg")); err != nil {
		return console.Usagef("--dkg %q is not 01, 02 or 04", c.String("dkg"))
	}
	if err := readOwner(c, &g); err != nil {
		return err
	}
	if g.Key, err = importedKey(env, c); err != nil {
		return err
	}
	if g, err = k.AddGroup(g); err != nil {
		return err
	}
	return printGroups(env, c, []kmc.Group{g})
}

// importedKey returns a known test key in upper-case hex, "" to draw one.
func importedKey(env *console.Env, c *cli.Context) (string, error) {
	text, file := c.String("key"), c.String("key-file")
	switch {
	case text != "" && file != "":
		return "", console.Usagef("give --key or --key-file, not both")
	case file != "":
		var err error
		if text, err = env.Secret("", file, false); err != nil {
			return "", err
		}
	}
	return strings.ToUpper(strings.TrimSpace(text)), nil
}

func sgcListCommand(env *console.Env) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the vending keys",
		Flags: []cli.Flag{dirFlag(), console.JSONFlag(),
			&cli.StringFlag{Name: "module", Usage: "only the keys authorised for the module with this `ID`"}},
		Action: func(c *cli.Context) error {
			k, err := open(c)
			if err != nil {
				return err
			}
			if id := c.String("module"); id != "" {
				return printGroups(env, c, k.Authorised(id))
			}
			return printGroups(env, c, k.Groups())
		},
	}
}

// groupView is a vending key as it is printed: everything but the key.
type groupView struct {
	SGC     string `json:"sgc"`
	KRN     int    `json:"krn"`
	KTC     string `json:"ktc"`
	BDT     int    `json:"bdt"`
	DKG     string `json:"dkg"`
	KEN     int    `json:"ken"`
	KCV     string `json:"kcv"`
	ULM     string `json:"ulm"`
	CLM     string `json:"clm"`
	SBM     string `json:"sbm"`
	CLU     int    `json:"clu"`
	ACT     string `json:"act"`
	EXP     string `json:"exp,omitempty"`
	IUT     string `json:"iut,omitempty"`
	Refresh int    `json:"refreshPeriod,omitempty"`
	SGN     string `json:"sgn"`
}

func viewGroup(g kmc.Group) (groupView, error) {
	kcv, err := g.KCV()
	v := groupView{
		SGC: fmt.Sprintf("%06d", g.SGC), KRN: g.KRN, KTC: g.KTC, BDT: g.BDT, DKG: fmt.Sprintf("%02d", g.DKG), KEN: g.KEN,
		KCV: kcv, ULM: limitText(g.ULM), CLM: limitText(g.CLM), SBM: fmt.Sprintf("%04X", g.SBM), CLU: g.CLU,
		ACT: g.ACT.UTC().Format(time.RFC3339), SGN: g.SGN,
	}
	if !g.EXP.IsZero() {
		v.EXP = g.EXP.Format(time.DateOnly)
	}
	if g.IUT.IsZero() {
		v.Refresh = g.Refresh
	} else {
		v.IUT = g.IUT.UTC().Format(time.RFC3339)
	}
	return v, err
}

func limitText(n uint32) string {
	if n == keyload.Unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(uint64(n), 10)
}

func printGroups(env *console.Env, c *cli.Context, groups []kmc.Group) error {
	views := []groupView{}
	var rows [][]string
	for _, g := range groups {
		v, err := viewGroup(g)
		if err != nil {
			return err
		}
		until := v.IUT
		if until == "" {
			until = fmt.Sprintf("%d days", v.Refresh)
		}
		views = append(views, v)
		rows = append(rows, []string{v.SGC, strconv.Itoa(v.KRN), v.KTC, strconv.Itoa(v.BDT), v.DKG, strconv.Itoa(v.KEN), v.KCV, v.ULM, v.CLM, v.SBM, until, v.SGN})
	}
	return env.Print(c, views, func(w io.Writer) error {
		console.Table(w, []string{"SGC", "KRN", "KTC", "BDT", "DKG", "KEN", "KCV", "ULM", "CLM", "SBM", "Issued for", "SGN"}, rows)
		return nil
	})
}
