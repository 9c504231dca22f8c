package rig

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Account is a customer's meter, and what the vending system knows of it.
type Account struct {
	Meter  *meter.Meter
	Config *prismtoken1.MeterConfigIn
}

// Accounts makes n EA11 meters under revision 1 of a supply group whose keys
// derive by DKGA04. Their numbers begin at first; each holds its own decoder key.
func (r *Rig) Accounts(sgc string, first, n int) ([]Account, error) {
	vk, group, err := r.vendingKey(sgc)
	if err != nil {
		return nil, err
	}
	out := make([]Account, 0, n)
	for i := first; i < first+n; i++ {
		pan, err := serial(i)
		if err != nil {
			return nil, err
		}
		c := prismtoken1.NewMeterConfigIn()
		c.Drn, c.Ea, c.Tct, c.Ken = pan.DRN(), int16(sts.EA11), 2, 255
		c.Sgc, c.Krn, c.Ti = int32(group.SGC), int16(group.KRN), 1
		key, err := vk.DecoderKey(sts.KeyParams{PAN: pan, EA: sts.EA11, KT: sts.DUTK, SGC: sts.SGC(group.SGC), KRN: sts.KRN(group.KRN), TI: 1, BaseDate: sts.BaseDate(group.BDT)})
		if err != nil {
			return nil, err
		}
		m, err := meter.New(meter.Config{DRN: c.Drn, EA: 11, TCT: 2, SGC: uint32(group.SGC), KRN: group.KRN, TI: 1, KT: 2, KEN: 255,
			BaseDate: group.BDT, DecoderKey: key.AppendBytes(nil)})
		if err != nil {
			return nil, err
		}
		out = append(out, Account{Meter: m, Config: c})
	}
	return out, nil
}

// vendingKey is a key as the KMC knows it.
func (r *Rig) vendingKey(sgc string) (*sts.VendingKey, kmc.Group, error) {
	centre, err := kmc.Open(r.Path("kmc", "centre"), nil)
	if err != nil {
		return nil, kmc.Group{}, err
	}
	var code int
	if _, err := fmt.Sscan(strings.TrimLeft(sgc, "0"), &code); err != nil {
		return nil, kmc.Group{}, fmt.Errorf("supply group %q: %w", sgc, err)
	}
	g, err := centre.Find(code, 1, 2014)
	if err != nil {
		return nil, g, err
	}
	secret, err := hex.DecodeString(g.Key)
	if err != nil || g.DKG != 4 {
		return nil, g, fmt.Errorf("the key of supply group %s (DKGA%02d) is not one of DKGA04: %v", sgc, g.DKG, err)
	}
	vk, err := sts.NewVendingKey(sts.DKGA04, secret)
	return vk, g, err
}

// serial is the n-th meter of manufacturer 01.
func serial(n int) (pan sts.PAN, err error) {
	for check := range 10 {
		if pan, err = sts.ParsePAN(fmt.Sprintf("01%08d%d", n, check)); err == nil {
			return pan, nil
		}
	}
	return pan, err
}

// Server is the VCM's token service as its clients know it.
func (v *VCM) Server() (vending.Config, error) {
	trust, err := vending.LoadTrust(v.CA, time.Now)
	return vending.Config{Address: v.Address, Trust: trust, Timeout: 20 * time.Second}, err
}

// Password is the API user's.
func (v *VCM) Password() (string, error) {
	p, err := os.ReadFile(v.Secret)
	return strings.TrimSuffix(string(p), "\n"), err
}

// Client is a connection to the token service on which the API user has signed
// in.
func (v *VCM) Client(ctx context.Context) (*vending.Client, error) {
	server, err := v.Server()
	if err != nil {
		return nil, err
	}
	password, err := v.Password()
	if err != nil {
		return nil, err
	}
	c, err := vending.Dial(ctx, server)
	if err != nil {
		return nil, err
	}
	if err := c.SignIn(ctx, v.User, password); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}
