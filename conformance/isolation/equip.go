package isolation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// supplyGroup is the one whose key every tenant gets that vends.
var supplyGroup = rig.SupplyGroup{SGC: "123456", DKG: "4", Name: "ISOLATION"}

// as makes the commands of the tenant's role, and the files that he exchanges
// with others, those of one of several tenants.
func (p *platform) as(tenant string) error {
	for _, what := range []string{"tenant", "mail"} {
		own := p.Path(what + "-" + tenant)
		if err := os.MkdirAll(own, 0o700); err != nil {
			return err
		}
		link := p.Path(what)
		switch at, err := os.Lstat(link); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case at.Mode()&fs.ModeSymlink == 0: // from before there were several
			if err := os.Rename(link, p.Path(what+"-first")); err != nil {
				return err
			}
		default:
			if err := os.Remove(link); err != nil {
				return err
			}
		}
		if err := os.Symlink(own, link); err != nil {
			return err
		}
	}
	return nil
}

// equip goes from nothing to a VCM of the tenant that vends.
func (p *platform) equip(ctx context.Context, tenant string) (*vcm, *rig.VCM, error) {
	if err := p.as(tenant); err != nil {
		return nil, nil, err
	}
	v, err := p.create(ctx, tenant, "")
	if err != nil {
		return nil, nil, err
	}
	if err := v.start(ctx); err != nil {
		return nil, nil, err
	}
	r := &rig.VCM{UUID: v.uuid, File: p.Path("mail-"+tenant, v.uuid+".vcm")}
	if err := os.WriteFile(r.File, v.file, 0o600); err != nil {
		return nil, nil, err
	}
	for _, step := range []func() error{
		func() error { return p.Enrol(ctx, r) },
		func() error { return p.Users(ctx, r) },
		func() error { // its own file, not that of whoever comes next
			r.CA = p.Path("mail-"+tenant, filepath.Base(r.CA))
			return nil
		},
		func() error { return p.centre(ctx) },
		func() error { return p.KeyRequest(ctx) },
		func() error {
			module, err := p.Module()
			if err != nil {
				return err
			}
			return p.KeyLoad(ctx, module)
		},
	} {
		if err := step(); err != nil {
			return nil, nil, fmt.Errorf("tenant %s: %w", tenant, err)
		}
	}
	return v, r, nil
}

// centre makes the key management centre, or gives its key to another tenant.
func (p *platform) centre(ctx context.Context) error {
	dir := p.Path("kmc", "centre")
	if _, err := os.Stat(dir); err != nil {
		return p.KMC(ctx, supplyGroup)
	}
	_, err := p.Run(ctx, rig.KMC, "kmc", "pubkey", "--dir", dir, "--out", filepath.Join(p.Path("mail"), "kmc.pub"))
	return err
}
