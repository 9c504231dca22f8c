package platform

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	api "github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

type sshadminService struct{ call }

func (s sshadminService) ShowKeys(context.Context) ([]*api.ServiceKey, error) {
	var out []*api.ServiceKey
	for _, service := range Services() {
		k := &api.ServiceKey{
			ServiceName: service,
			Address:     s.p.listeners[service].Addr().String(),
			HostKey:     strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.p.hostKeys[service].PublicKey()))),
		}
		if key, at, ok := s.p.cfg.Clients.Installed(service); ok {
			k.ClientKey, k.Installed = request.KeyText(key), at.Unix()
		}
		out = append(out, k)
	}
	return out, nil
}

func (s sshadminService) InstallKeys(ctx context.Context, keys []*api.ClientKey) ([]*api.ServiceKey, error) {
	install := map[string]ssh.PublicKey{}
	for _, k := range keys {
		if !slices.Contains(Services(), k.ServiceName) {
			return nil, errkind.Errorf(errkind.Invalid, "the platform has no service %.40q; its services are %s", k.ServiceName, strings.Join(Services(), ", "))
		}
		if _, twice := install[k.ServiceName]; twice {
			return nil, errkind.Errorf(errkind.Invalid, "two keys for service %s", k.ServiceName)
		}
		key, err := request.ParseKey(k.ClientKey)
		if err != nil {
			return nil, errkind.Errorf(errkind.Invalid, "key for service %s: not a public key in authorized_keys form", k.ServiceName)
		}
		install[k.ServiceName] = key
	}
	if len(install) == 0 {
		return nil, errkind.Errorf(errkind.Invalid, "no key to install")
	}
	if err := s.separate(install); err != nil {
		return nil, err
	}
	e, err := s.entry(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.p.cfg.Clients.Install(ctx, install, s.p.cfg.Audit, e); err != nil {
		return nil, err
	}
	s.p.cfg.Enrolled()
	return s.ShowKeys(ctx)
}

// separate refuses one key for two services: who holds the key of one of them
// is to hold nothing of the others.
func (s sshadminService) separate(install map[string]ssh.PublicKey) error {
	owner := map[string]string{}
	for _, service := range Services() {
		key, ok := install[service]
		if !ok {
			if key, _, ok = s.p.cfg.Clients.Installed(service); !ok {
				continue
			}
		}
		id := string(key.Marshal())
		if other, taken := owner[id]; taken {
			return errkind.Errorf(errkind.Refused, "services %s and %s would share a key; each service has one of its own", other, service)
		}
		owner[id] = service
	}
	return nil
}
