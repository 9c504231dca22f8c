package device

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"regexp"
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

// CertifyHost certifies a service's host key: the platform's for uuid "", else
// that partition's. The certificate has no end of validity: it is worth as
// much as the unit key, and the service's key dies with the service.
func (u *Unit) CertifyHost(uuid string, in hsmapi.CertifyHost) (hsmapi.HostCertificate, error) {
	if ok, _ := regexp.MatchString(`^[a-z][a-z0-9-]{0,31}$`, in.Service); !ok {
		return hsmapi.HostCertificate{}, errkind.Errorf(errkind.Invalid, "service name %.40q", in.Service)
	}
	key, err := warrant.ParseKey(in.Key)
	if err != nil {
		return hsmapi.HostCertificate{}, errkind.Errorf(errkind.Invalid, "host key of %s: %w", in.Service, err)
	}
	if !slices.Contains([]string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384}, key.Type()) {
		return hsmapi.HostCertificate{}, errkind.Errorf(errkind.Invalid, "host key of %s is of type %s; use %s", in.Service, key.Type(), ssh.KeyAlgoED25519)
	}
	signer, err := u.unitSigner()
	if err != nil {
		return hsmapi.HostCertificate{}, err
	}
	principal := hsmapi.Principal(u.id.ESN, uuid, in.Service)
	cert := &ssh.Certificate{
		Key: key, CertType: ssh.HostCert, KeyId: principal,
		ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		return hsmapi.HostCertificate{}, fmt.Errorf("certify %s: %w", principal, err)
	}
	return hsmapi.HostCertificate{Certificate: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(cert)))}, nil
}
