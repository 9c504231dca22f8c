package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

func (t tool) enroll() *cli.Command {
	return &cli.Command{
		Name: "enroll", Usage: "enroll a VCM with the configuration file from the service provider",
		Flags: online(
			&cli.StringFlag{Name: "config", Usage: "the configuration file", Required: true},
			makerRootFlag(),
			&cli.BoolFlag{Name: "no-service-restart", Usage: "accepted for compatibility: no service on this host needs a restart"},
		),
		Action: t.with(func(k *call, _ []string) error {
			file, err := t.env.ReadFile(k.c.String("config"), maxFile)
			if err != nil {
				return err
			}
			if err := t.pin(k.home, k.c.String("maker-root")); err != nil {
				return err
			}
			f, services, err := Enroll(k.c.Context, k.home, file, k.timeout, t.env.Clock)
			if err != nil {
				return console.Failed("enroll VCM", err)
			}
			return PrintEnrolled(t.env, k.c, f, services)
		}),
	}
}

// pin keeps the maker's root if a file is given, and says so the first time.
func (t tool) pin(h *enrol.Home, path string) error {
	if path == "" {
		return nil
	}
	root, first, err := h.PinMakerRoot(path)
	if err == nil && first {
		fmt.Fprintf(t.env.Stderr, "The maker's root %s is pinned. Compare this with what the maker publishes.\n", ssh.FingerprintSHA256(root))
	}
	return err
}

// PrintEnrolled is what a command says after Enroll.
func PrintEnrolled(env *console.Env, c *cli.Context, f *vcmfile.File, services []string) error {
	out := map[string]any{"uuid": f.UUID, "esn": f.ESN, "module_id": f.ModuleID, "address": f.Address, "services": services}
	return env.Print(c, out, func(w io.Writer) error {
		console.Fields(w, [2]string{"UUID", f.UUID}, [2]string{"ESN", f.ESN}, [2]string{"MODULE ID", f.ModuleID}, [2]string{"ADDRESS", f.Address})
		for _, s := range services {
			address, err := f.Endpoint(s)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "service %s at %s: host certificate good, key installed\n", s, address)
		}
		_, err := fmt.Fprintf(w, "VCM %s is enrolled.\n", f.UUID)
		return err
	})
}

// Enroll verifies a VCM file against the pinned root, checks the host
// certificates of the VCM's services, installs this host's keys for them and
// keeps the file. It returns the services with a key of this host. Doing it
// again repairs what was interrupted.
func Enroll(ctx context.Context, h *enrol.Home, file []byte, timeout time.Duration, now clock.Clock) (*vcmfile.File, []string, error) {
	f, err := h.VerifyVCM(file)
	if err != nil {
		return nil, nil, err
	}
	if err := h.AdmitVCM(f); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := access.DialVCM(ctx, h, f, ServiceSSHAdmin, timeout)
	if errkind.Is(err, errkind.Unavailable) {
		return nil, nil, errkind.Errorf(errkind.Unavailable, "%w; has the provider started the VCM?", err)
	}
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	services, err := installKeys(ctx, h, f, sshadmin.NewSshAdminClient(conn.Thrift()), now.Now())
	if err != nil {
		return nil, nil, err
	}
	return f, services, h.SaveVCM(f, file)
}

func installKeys(ctx context.Context, h *enrol.Home, f *vcmfile.File, admin *sshadmin.SshAdminClient, now time.Time) ([]string, error) {
	present, err := admin.ShowKeys(ctx)
	if err != nil {
		return nil, err
	}
	unit, err := f.Key()
	if err != nil {
		return nil, err
	}
	var names []string
	var install []*sshadmin.ClientKey
	for _, s := range present {
		if err := checkService(f, s, unit, now); err != nil {
			return nil, err
		}
		key, _, err := h.EnsureKey(enrol.Tenant, s.ServiceName)
		if err != nil {
			return nil, err
		}
		names = append(names, s.ServiceName)
		if !sameKey(s.ClientKey, key.PublicKey()) {
			install = append(install, &sshadmin.ClientKey{ServiceName: s.ServiceName, ClientKey: request.KeyText(key.PublicKey())})
		}
	}
	if len(install) == 0 {
		return names, nil
	}
	_, err = admin.InstallKeys(ctx, install)
	return names, err
}

// checkService compares what sshadmin says about a service with the signed file
// and checks the service's host certificate.
func checkService(f *vcmfile.File, s *sshadmin.ServiceKey, unit ssh.PublicKey, now time.Time) error {
	if _, err := f.Endpoint(s.ServiceName); err != nil {
		return errkind.Errorf(errkind.Integrity, "the VCM has a service %s that its configuration file does not name", s.ServiceName)
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.HostKey))
	if err != nil {
		return errkind.Errorf(errkind.Integrity, "service %s has no readable host key", s.ServiceName)
	}
	if err := sshrpc.CheckHostCertificate(host, unit, hsmapi.Principal(f.ESN, f.UUID, s.ServiceName), now); err != nil {
		return errkind.Errorf(errkind.Of(err), "service %s: %w", s.ServiceName, err)
	}
	return nil
}

func sameKey(text string, key ssh.PublicKey) bool {
	have, err := request.ParseKey(text)
	return err == nil && bytes.Equal(have.Marshal(), key.Marshal())
}
