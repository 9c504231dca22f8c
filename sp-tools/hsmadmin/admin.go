package hsmadmin

import (
	"bytes"
	"context"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/sp-tools/platform"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// maxKeyFile bounds private key files.
const maxKeyFile = 16 << 10

// onAdmin does fn with a unit's sshadmin service. For a unit in factory state,
// whose file names a factory key, that key is tried last.
func (k *call) onAdmin(u unitfile.Unit, fn func(ctx context.Context, admin *sshadmin.SshAdminClient) error) error {
	ctx, cancel := k.context()
	defer cancel()
	conn, err := access.DialUnit(ctx, k.home, u, platform.SSHAdmin, k.timeout)
	if u.FactoryKey != "" && (errkind.Is(err, errkind.Unauthorised) || errkind.Is(err, errkind.NotFound)) {
		conn, err = k.dialFactory(ctx, u)
	}
	if errkind.Is(err, errkind.Unauthorised) {
		return errkind.Errorf(errkind.Unauthorised, "%w; give a backup of the unit's sshadmin key to 'hsmadmin enroll --sshadmin-key' or 'hsmadmin keys restore'", err)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(ctx, sshadmin.NewSshAdminClient(conn.Thrift()))
}

// dialAs connects to a unit's sshadmin service with a given key.
func (k *call) dialAs(ctx context.Context, u unitfile.Unit, signer ssh.Signer) (*sshrpc.Client, error) {
	address, err := u.Service(platform.SSHAdmin)
	if err != nil {
		return nil, err
	}
	key, err := u.Key()
	if err != nil {
		return nil, err
	}
	return sshrpc.Dial(ctx, sshrpc.ClientConfig{
		Service: platform.SSHAdmin, Address: address, Signer: signer, UnitKey: key,
		Principal: hsmapi.Principal(u.ESN, "", platform.SSHAdmin), Timeout: k.timeout, Clock: k.env.Clock,
	})
}

func (k *call) dialFactory(ctx context.Context, u unitfile.Unit) (*sshrpc.Client, error) {
	text, err := atomicfile.Read(u.FactoryKey, maxKeyFile)
	if err != nil {
		return nil, errkind.Errorf(errkind.Refused, "HSM %s is in factory state, and its one-time key cannot be read: %w", u.ESN, err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the one-time key %s: %w", u.FactoryKey, err)
	}
	k.env.Logger(k.c).Debug("use the one-time factory key", "esn", u.ESN)
	return k.dialAs(ctx, u, signer)
}

// verified lists the services of a unit after a check of each host certificate.
func (k *call) verified(ctx context.Context, u unitfile.Unit, admin *sshadmin.SshAdminClient) ([]*sshadmin.ServiceKey, error) {
	services, err := admin.ShowKeys(ctx)
	if err != nil {
		return nil, err
	}
	unit, err := u.Key()
	if err != nil {
		return nil, err
	}
	for _, s := range services {
		host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.HostKey))
		if err != nil {
			return nil, errkind.Errorf(errkind.Integrity, "service %s of HSM %s has no readable host key", s.ServiceName, u.ESN)
		}
		if err := sshrpc.CheckHostCertificate(host, unit, hsmapi.Principal(u.ESN, "", s.ServiceName), k.env.Clock.Now()); err != nil {
			return nil, errkind.Errorf(errkind.Of(err), "service %s of HSM %s: %w", s.ServiceName, u.ESN, err)
		}
	}
	return services, nil
}

// keyFor returns the key that a service is to have.
type keyFor func(service string) (ssh.Signer, error)

func (k *call) present(service string) (ssh.Signer, error) {
	key, _, err := k.home.EnsureKey(enrol.Platform, service)
	return key, err
}

func (k *call) next(service string) (ssh.Signer, error) {
	return k.home.NextKey(enrol.Platform, service)
}

// install gives every service of a unit the key that it is to have, all at once,
// and returns the services' names.
func (k *call) install(ctx context.Context, u unitfile.Unit, admin *sshadmin.SshAdminClient, key keyFor) ([]string, error) {
	services, err := k.verified(ctx, u, admin)
	if err != nil {
		return nil, err
	}
	var names []string
	var change []*sshadmin.ClientKey
	for _, s := range services {
		signer, err := key(s.ServiceName)
		if err != nil {
			return nil, err
		}
		names = append(names, s.ServiceName)
		have, err := request.ParseKey(s.ClientKey)
		if err == nil && bytes.Equal(have.Marshal(), signer.PublicKey().Marshal()) {
			continue
		}
		change = append(change, &sshadmin.ClientKey{ServiceName: s.ServiceName, ClientKey: request.KeyText(signer.PublicKey())})
	}
	if len(change) > 0 {
		_, err = admin.InstallKeys(ctx, change)
	}
	return names, err
}
