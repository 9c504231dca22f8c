package rig

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
)

// Direct is the provider without the product's tools: he speaks to the platform's
// services over connections of his own, many at a time, as a script would that
// manages a great number of VCMs.
type Direct struct {
	r     *Rig
	admin ssh.Signer // the sshadmin key that hsmadmin made
	key   ssh.Signer // for the orchestrator service
}

// unitJSON is what Direct reads of the unit's file.
type unitJSON struct {
	ESN      string `json:"esn"`
	UnitKey  string `json:"unitKey"`
	Services []struct {
		Name    string `json:"name"`
		Address string `json:"address"`
	} `json:"services"`
}

// NewKey makes a client key.
func NewKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}

// KeyLine is a public key as services and files name it.
func KeyLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// Direct takes the orchestrator service over from the tools, by the sshadmin key
// that EnrolProvider made; EnrolProvider again gives it back to them.
func (r *Rig) Direct(ctx context.Context) (*Direct, error) {
	const passphrase = "of-the-rig-only"
	secret, backup := r.Path("provider", "backup.passphrase"), r.Path("provider", "sshadmin.backup")
	if err := os.WriteFile(secret, []byte(passphrase+"\n"), 0o600); err != nil {
		return nil, err
	}
	if _, err := r.Run(ctx, Provider, "hsmadmin", "keys", "backup", "--force", "--passphrase-file", secret, backup); err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(backup)
	if err != nil {
		return nil, err
	}
	d := &Direct{r: r}
	if d.admin, err = ssh.ParsePrivateKeyWithPassphrase(pem, []byte(passphrase)); err != nil {
		return nil, fmt.Errorf("backup of the sshadmin key: %w", err)
	}
	if d.key, err = NewKey(); err != nil {
		return nil, err
	}
	return d, d.Take(ctx)
}

// Take installs Direct's own key at the orchestrator service.
func (d *Direct) Take(ctx context.Context) error {
	s, err := d.service(ctx, "sshadmin", d.admin)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = sshadmin.NewSshAdminClient(s.Thrift()).InstallKeys(ctx, []*sshadmin.ClientKey{
		{ServiceName: "orchestrator", ClientKey: KeyLine(d.key.PublicKey())},
	})
	return err
}

// Hosting is one session with the orchestrator service.
type Hosting struct {
	*orchestrator.OrchestratorClient
	*Service
}

// Dial opens a session with the orchestrator service where it listens now.
func (d *Direct) Dial(ctx context.Context) (*Hosting, error) {
	s, err := d.service(ctx, "orchestrator", d.key)
	if err != nil {
		return nil, err
	}
	return &Hosting{orchestrator.NewOrchestratorClient(s.Thrift()), s}, nil
}

func (d *Direct) service(ctx context.Context, name string, key ssh.Signer) (*Service, error) {
	u, unit, err := d.r.unit()
	if err != nil {
		return nil, err
	}
	for _, s := range u.Services {
		if s.Name == name {
			return DialService(ctx, s.Address, name, key, unit)
		}
	}
	return nil, fmt.Errorf("the unit has no service %s", name)
}

func (r *Rig) unit() (u unitJSON, key ssh.PublicKey, err error) {
	p, err := os.ReadFile(r.UnitFile())
	if err != nil {
		return u, nil, err
	}
	if err := json.Unmarshal(p, &u); err != nil {
		return u, nil, fmt.Errorf("%s: %w", r.UnitFile(), err)
	}
	key, _, _, _, err = ssh.ParseAuthorizedKey([]byte(u.UnitKey))
	return u, key, err
}

// UnitKey is the key that every host certificate of the unit is signed with.
func (r *Rig) UnitKey() (ssh.PublicKey, error) {
	_, key, err := r.unit()
	return key, err
}

// ESN is the unit's electronic serial number.
func (r *Rig) ESN() (string, error) {
	u, _, err := r.unit()
	return u.ESN, err
}

// Licence has the maker license the unit and the provider apply it.
func (r *Rig) Licence(ctx context.Context, kind, value string) error {
	esn, err := r.ESN()
	if err != nil {
		return err
	}
	file := r.Mail("licence-" + kind)
	if _, err := r.Run(ctx, Maker, "vendor", "licence", "--dir", r.Path("maker", "keys"), "--esn", esn,
		"--type", kind, "--value", value, "--out", file); err != nil {
		return err
	}
	_, err = r.Run(ctx, Provider, "hsmadmin", "fet", file)
	return err
}
