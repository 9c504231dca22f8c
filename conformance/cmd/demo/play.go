package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// The meters of the demo: an EA11 meter with a DKGA04 key, and an EA07 meter
// with a DKGA02 key.
const (
	ea11Meter = "01234567897"
	ea07Meter = "07000000013"
)

// play goes through the whole job.
func play(ctx context.Context, r *rig.Rig) error {
	var v *rig.VCM
	var request string
	acts := []struct {
		title string
		do    func() error
	}{
		{"The maker makes a unit", func() error { return r.Maker(ctx) }},
		{"The provider starts it", func() error {
			if _, _, err := r.Unit(ctx); err != nil {
				return err
			}
			return r.EnrolProvider(ctx)
		}},
		{"The tenant asks for a VCM", func() (err error) {
			request, err = r.Request(ctx, "utility-a", "--autostart")
			return err
		}},
		{"The provider inspects the request and makes the VCM", func() (err error) {
			if _, err := r.Run(ctx, rig.Provider, "hsmadmin", "vcm", "inspect-request", "--verify", request); err != nil {
				return err
			}
			if v, err = r.Create(ctx, request, "utility-a"); err != nil {
				return err
			}
			if _, err := r.Run(ctx, rig.Provider, "vcmadmin", "list"); err != nil {
				return err
			}
			_, err = r.Run(ctx, rig.Provider, "vcmadmin", "show", v.UUID)
			return err
		}},
		{"The tenant enrols it", func() error { return r.Enrol(ctx, v) }},
		{"The tenant makes users", func() error { return r.Users(ctx, v) }},
		{"A key management centre has keys for three supply groups", func() error {
			return r.KMC(ctx, rig.SupplyGroup{SGC: "123456", DKG: "04", Name: "Demo EA11"},
				rig.SupplyGroup{SGC: "123457", DKG: "02", Name: "Demo EA07"}, rig.SupplyGroup{SGC: "400400", DKG: "04", Name: "Demo next"})
		}},
		{"The tenant asks for vending keys", func() error { return r.KeyRequest(ctx) }},
		{"The centre answers, the tenant loads the keys", func() error { return loadKeys(ctx, r) }},
		{"A vending system connects", func() error {
			_, err := r.Run(ctx, rig.Vending, "vend", "ping", "--address", v.Address, "--ca", v.CA)
			return err
		}},
		{"Credit for an EA11 meter", func() error { return ea11(ctx, r, v) }},
		{"Credit for an EA07 meter", func() error { return ea07(ctx, r, v) }},
	}
	for i, act := range acts {
		fmt.Printf("\n── %d. %s\n", i+1, act.title)
		if err := act.do(); err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, strings.ToLower(act.title[:1])+act.title[1:], err)
		}
	}
	return nil
}

// loadKeys authorises the module whose request is in the mail, and loads.
func loadKeys(ctx context.Context, r *rig.Rig) error {
	p, err := os.ReadFile(r.Mail("vkloadreq.txt"))
	if err != nil {
		return err
	}
	_, rest, ok := strings.Cut(string(p), ";SMI")
	module, _, ok2 := strings.Cut(rest, ";")
	if !ok || !ok2 {
		return errors.New("the VKLOADREQ names no module")
	}
	return r.KeyLoad(ctx, module)
}

func ea11(ctx context.Context, r *rig.Rig, v *rig.VCM) error {
	meter := r.Path("customer", "ea11.meter")
	if err := newMeter(ctx, r, meter, "123456", "--drn", ea11Meter, "--ea", "11", "--dkga", "04"); err != nil {
		return err
	}
	config := []string{"--drn", ea11Meter, "--ea", "11", "--sgc", "123456", "--krn", "1", "--ti", "1"}
	tokens, err := vend(ctx, r, v, "credit", append(config, "--kwh", "10.2")...)
	if err != nil {
		return err
	}
	if err := enter(ctx, r, meter, 0, tokens...); err != nil {
		return err
	}
	if _, err := r.Run(ctx, rig.Customer, "meter", "show", "--state", meter); err != nil {
		return err
	}
	fmt.Println("  … the same digits a second time:")
	if err := enter(ctx, r, meter, 3, tokens...); err != nil {
		return err
	}
	if _, err := r.Run(ctx, rig.Vending, "vend", append(append([]string{"verify"}, v.Flags()...), append(config, tokens[0])...)...); err != nil {
		return err
	}
	fmt.Println("  … a key change to supply group 400400, and credit under the new key:")
	set, err := vend(ctx, r, v, "keychange", append(config, "--to-sgc", "400400", "--to-krn", "1", "--to-ti", "1")...)
	if err != nil {
		return err
	}
	if err := enter(ctx, r, meter, 0, set...); err != nil {
		return err
	}
	tokens, err = vend(ctx, r, v, "credit", "--drn", ea11Meter, "--ea", "11", "--sgc", "400400", "--krn", "1", "--ti", "1", "--kwh", "5")
	if err != nil {
		return err
	}
	if err := enter(ctx, r, meter, 0, tokens...); err != nil {
		return err
	}
	return balance(ctx, r, meter, "15.2")
}

func ea07(ctx context.Context, r *rig.Rig, v *rig.VCM) error {
	meter := r.Path("customer", "ea07.meter")
	if err := newMeter(ctx, r, meter, "123457", "--drn", ea07Meter, "--ea", "7", "--dkga", "02"); err != nil {
		return err
	}
	tokens, err := vend(ctx, r, v, "credit", "--drn", ea07Meter, "--ea", "7", "--sgc", "123457", "--krn", "1", "--ti", "1", "--kwh", "10.2")
	if err != nil {
		return err
	}
	if err := enter(ctx, r, meter, 0, tokens...); err != nil {
		return err
	}
	return balance(ctx, r, meter, "10.2")
}

// newMeter makes a meter that holds only its own decoder key.
func newMeter(ctx context.Context, r *rig.Rig, state, sgc string, flags ...string) error {
	key := r.Mail("vending-key-" + sgc)
	if _, err := r.Run(ctx, rig.KMC, "kmc", "key", "export", "--dir", r.Path("kmc", "centre"), "--sgc", sgc, "--krn", "1",
		"--bdt", "2014", "--out", key); err != nil {
		return err
	}
	args := append([]string{"init", "--state", state, "--sgc", sgc, "--krn", "1", "--ti", "1", "--base-date", "2014",
		"--vending-key-file", key}, flags...)
	_, err := r.Run(ctx, rig.Customer, "meter", args...)
	return err
}

// vend runs a verb of the vending client and returns the tokens it printed.
func vend(ctx context.Context, r *rig.Rig, v *rig.VCM, verb string, args ...string) ([]string, error) {
	out, err := r.Run(ctx, rig.Vending, "vend", append(append([]string{verb}, v.Flags()...), append([]string{"--json"}, args...)...)...)
	if err != nil {
		return nil, err
	}
	var tokens []struct {
		TokenDec string `json:"tokenDec"`
	}
	if err := json.Unmarshal([]byte(out), &tokens); err != nil {
		return nil, fmt.Errorf("vend %s answered %q: %w", verb, out, err)
	}
	var digits []string
	for _, t := range tokens {
		digits = append(digits, t.TokenDec)
	}
	if len(digits) == 0 {
		return nil, fmt.Errorf("vend %s answered no token", verb)
	}
	return digits, nil
}

func enter(ctx context.Context, r *rig.Rig, meter string, want int, tokens ...string) error {
	_, err := r.RunCode(ctx, want, rig.Customer, "meter", append([]string{"enter", "--state", meter}, tokens...)...)
	return err
}

// balance checks the electricity register of a meter, in kWh.
func balance(ctx context.Context, r *rig.Rig, meter, want string) error {
	out, err := r.Run(ctx, rig.Customer, "meter", "show", "--state", meter)
	if err != nil {
		return err
	}
	if !strings.Contains(out, want+" kWh") {
		return fmt.Errorf("the meter does not show %s kWh", want)
	}
	return nil
}
