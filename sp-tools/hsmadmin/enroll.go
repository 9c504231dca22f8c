package hsmadmin

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

type enrolledJSON struct {
	ESN      string   `json:"esn"`
	ModuleID string   `json:"module_id"`
	Services []string `json:"services"`
}

func (t tool) enroll() *cli.Command {
	return &cli.Command{
		Name: "enroll", Usage: "enroll an HSM on this host, or renew what is enrolled",
		Flags: common(
			&cli.StringFlag{Name: "unit", Usage: "the unit.json file of the HSM's platform; without it all enrolled HSMs are checked"},
			&cli.StringFlag{Name: "maker-root", Usage: "the maker's public key, to be pinned; needed the first time"},
			&cli.StringFlag{Name: "sshadmin-key", Usage: "backup of the sshadmin key to use if this host has none"},
			&cli.StringFlag{Name: "passphrase-file", Usage: "file with the backup's passphrase"},
		),
		Action: t.with(func(k *call, _ []string) error {
			return console.Failed("enroll", k.enroll())
		}),
	}
}

func (k *call) enroll() error {
	if path := k.c.String("maker-root"); path != "" {
		root, first, err := k.home.PinMakerRoot(path)
		if err != nil {
			return err
		}
		if first {
			fmt.Fprintf(k.env.Stderr, "The maker's root %s is pinned. Compare this with what the maker publishes.\n", ssh.FingerprintSHA256(root))
		}
	}
	units, err := k.toEnroll()
	if err != nil {
		return err
	}
	if err := k.restoreIfMissing(); err != nil {
		return err
	}
	var out []enrolledJSON
	for _, u := range units {
		var services []string
		err := k.onAdmin(u, func(ctx context.Context, admin *sshadmin.SshAdminClient) (err error) {
			services, err = k.install(ctx, u, admin, k.present)
			return err
		})
		if errkind.Is(err, errkind.Unauthorised) {
			return errkind.Errorf(errkind.Unauthorised, "HSM %s was enrolled with another sshadmin key: %w", u.ESN, err)
		}
		if err != nil {
			return err
		}
		if err := k.home.SaveUnit(u); err != nil {
			return err
		}
		out = append(out, enrolledJSON{u.ESN, u.ModuleID, services})
	}
	return k.env.Print(k.c, out, func(w io.Writer) error {
		for _, e := range out {
			if _, err := fmt.Fprintf(w, "HSM %s (module %s) is enrolled: warrant and host certificates good, keys installed for %s.\n",
				e.ESN, e.ModuleID, strings.Join(e.Services, ", ")); err != nil {
				return err
			}
		}
		return nil
	})
}

// toEnroll returns the unit of --unit after a check of its warrant, or those
// that are enrolled already.
func (k *call) toEnroll() ([]unitfile.Unit, error) {
	path := k.c.String("unit")
	if path == "" {
		return k.units()
	}
	u, err := unitfile.Read(path)
	if err != nil {
		return nil, err
	}
	root, err := k.home.MakerRoot()
	if err != nil {
		return nil, err
	}
	if _, err := enrol.VerifyUnit(u, root); err != nil {
		return nil, err
	}
	// onAdmin needs a key to begin with; it replaces the factory's.
	if !k.c.IsSet("sshadmin-key") {
		if _, err := k.present(enrol.SSHAdmin); err != nil {
			return nil, err
		}
	}
	return []unitfile.Unit{u}, nil
}

// restoreIfMissing takes the sshadmin key from --sshadmin-key if there is none.
func (k *call) restoreIfMissing() error {
	file := k.c.String("sshadmin-key")
	if file == "" {
		return nil
	}
	if _, err := k.home.Key(enrol.Platform, enrol.SSHAdmin); !errkind.Is(err, errkind.NotFound) {
		return err
	}
	private, err := k.home.ReadBackup(file, k.backupPassphrase)
	if err != nil {
		return err
	}
	if err := k.home.SetNext(enrol.Platform, enrol.SSHAdmin, private); err != nil {
		return err
	}
	return k.home.UseNext(enrol.Platform, enrol.SSHAdmin)
}

func (k *call) backupPassphrase() (string, error) {
	return k.env.Secret("Passphrase of the backup: ", k.c.String("passphrase-file"), false)
}
