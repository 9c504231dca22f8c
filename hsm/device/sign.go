package device

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

// Sign makes an SSHSIG by the unit key in one of the namespaces open to the platform.
func (u *Unit) Sign(in hsmapi.Sign) (hsmapi.Signature, error) {
	if !slices.Contains(hsmapi.SignNamespaces(), in.Namespace) {
		return hsmapi.Signature{}, errkind.Errorf(errkind.Refused, "the unit key does not sign in namespace %.40q", in.Namespace)
	}
	return u.sign(in.Namespace, in.Message)
}

// signModule signs a module's public key record, which must name that module.
func (u *Unit) signModule(moduleID, text string) (hsmapi.Signature, error) {
	if prefix := hsmapi.ModulePrefix(moduleID); !strings.HasPrefix(text, prefix) {
		return hsmapi.Signature{}, errkind.Errorf(errkind.Refused, "the unit signs for this module only records that begin with %s", prefix)
	}
	return u.sign(hsmapi.NamespaceModule, []byte(text))
}

func (u *Unit) sign(namespace string, message []byte) (hsmapi.Signature, error) {
	signer, err := u.unitSigner()
	if err != nil {
		return hsmapi.Signature{}, err
	}
	sig, err := sshsig.Sign(bytes.NewReader(message), signer, sshsig.HashSHA512, namespace)
	if err != nil {
		return hsmapi.Signature{}, fmt.Errorf("sign by the unit key: %w", err)
	}
	return hsmapi.Signature{Armored: string(sshsig.Armor(sig))}, nil
}

func (u *Unit) unitSigner() (ssh.Signer, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.ready(); err != nil {
		return nil, err
	}
	return u.signer, nil
}

// CertifyHosts certifies services' host keys: the platform's for uuid "", else
// that partition's. The certificates have no end of validity: they are worth as
// much as the unit key, and a service's key dies with the service.
func (u *Unit) CertifyHosts(uuid string, in hsmapi.CertifyHosts) (out hsmapi.HostCertificates, err error) {
	if n := len(in.Hosts); n < 1 || n > hsmapi.MaxHosts {
		return out, errkind.Errorf(errkind.Invalid, "%d host keys, not 1 to %d", n, hsmapi.MaxHosts)
	}
	signer, err := u.unitSigner()
	if err != nil {
		return out, err
	}
	for _, h := range in.Hosts {
		cert, err := certifyHost(signer, hsmapi.Principal(u.id.ESN, uuid, h.Service), h)
		if err != nil {
			return out, err
		}
		out.Certificates = append(out.Certificates, cert)
	}
	return out, nil
}

func certifyHost(signer ssh.Signer, principal string, in hsmapi.Host) (string, error) {
	if !isServiceName(in.Service) {
		return "", errkind.Errorf(errkind.Invalid, "service name %.40q", in.Service)
	}
	key, err := warrant.ParseKey(in.Key)
	if err != nil {
		return "", errkind.Errorf(errkind.Invalid, "host key of %s: %w", in.Service, err)
	}
	if !slices.Contains([]string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384}, key.Type()) {
		return "", errkind.Errorf(errkind.Invalid, "host key of %s is of type %s; use %s", in.Service, key.Type(), ssh.KeyAlgoED25519)
	}
	cert := &ssh.Certificate{
		Key: key, CertType: ssh.HostCert, KeyId: principal,
		ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		return "", fmt.Errorf("certify %s: %w", principal, err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert))), nil
}

// isServiceName reports whether name is one: lower case letters, digits and
// hyphens, a letter first, 32 at most.
func isServiceName(name string) bool {
	rest := strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyz")
	return rest != name && len(name) <= 32 && strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
