package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"slices"
	"strings"

	"filippo.io/edwards25519"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// hostKey is the key of an SSH service, or of the audit log.
type hostKey struct {
	name    string
	seed    []byte
	cert    *ssh.Certificate // by the unit; nil: not yet
	private ed25519.PrivateKey
	fresh   bool // the seed is to be stored
}

// openKeys makes the log's key, which lives as long as the partition, reads or
// makes the services' host keys, and has the unit certify those that it has not
// certified yet.
func (p *partition) openKeys(ctx context.Context, partitionKey []byte, services []string) error {
	seed, err := sealed.Derive(partitionKey, "tesserae audit log key v1")
	if err != nil {
		return err
	}
	keys := []*hostKey{{name: serviceAuditLog, seed: seed}}
	for _, name := range services {
		keys = append(keys, &hostKey{name: name})
	}
	defer func() {
		for _, k := range keys {
			clear(k.seed)
		}
	}()
	if err := p.readKeys(ctx, keys); err != nil {
		return err
	}
	if err := p.certifyKeys(ctx, keys); err != nil {
		return err
	}
	p.private = make(map[string]ed25519.PrivateKey, len(keys))
	for _, k := range keys {
		p.private[k.name] = k.private
	}
	p.hosts = make(map[string]ssh.Signer, len(services))
	for _, k := range keys[1:] {
		signer, err := ssh.NewSignerFromKey(k.private)
		if err == nil {
			p.hosts[k.name], err = ssh.NewCertSigner(k.cert, signer)
		}
		if err != nil {
			return errkind.Errorf(errkind.Integrity, "host certificate of %s: %w", k.name, err)
		}
	}
	p.log, err = auditlog.New(auditlog.Config{
		Origin:      "tesserae/" + p.opened.Identity.ESN + "/" + p.opened.UUID,
		Key:         keys[0].private,
		Certificate: string(ssh.MarshalAuthorizedKey(keys[0].cert)),
	})
	return err
}

// certificateOf is where the certificate of a key is stored; its seed is under
// the name alone.
func certificateOf(name string) []byte { return []byte("certificate of " + name) }

// readKeys reads what is stored of the keys, and makes those that are not.
func (p *partition) readKeys(ctx context.Context, keys []*hostKey) error {
	unit, err := warrant.ParseKey(p.opened.Identity.UnitKey)
	if err != nil {
		return errkind.Errorf(errkind.Integrity, "the unit's key: %w", err)
	}
	return p.store.View(ctx, func(tx *store.Tx) error {
		b := tx.Bucket(bucketHost)
		for _, k := range keys {
			if k.seed == nil {
				seed, err := b.Get([]byte(k.name))
				switch {
				case err != nil:
					return err
				case seed == nil:
					k.seed, k.fresh = make([]byte, ed25519.SeedSize), true
					_, _ = rand.Read(k.seed) // never fails: crypto/rand ends the process instead
				case len(seed) != ed25519.SeedSize:
					return errkind.Errorf(errkind.Integrity, "stored host key of %s is malformed", k.name)
				default:
					k.seed = bytes.Clone(seed)
				}
			}
			raw, err := b.Get(certificateOf(k.name))
			if err != nil {
				return err
			}
			if raw == nil || k.fresh || !k.accept(raw, unit, hsmapi.Principal(p.opened.Identity.ESN, p.opened.UUID, k.name)) {
				if k.private, err = newKeyFromSeed(k.seed); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// accept takes a stored certificate, if it is what the unit would issue today.
// It holds the public half of the key, which takes longer to compute than all
// else here; checkKeys does so when nobody waits.
func (k *hostKey) accept(raw []byte, unit ssh.PublicKey, principal string) bool {
	parsed, err := ssh.ParsePublicKey(raw)
	if err != nil {
		return false
	}
	cert, ok := parsed.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.HostCert || cert.ValidAfter != 0 || cert.ValidBefore != ssh.CertTimeInfinity ||
		!slices.Equal(cert.ValidPrincipals, []string{principal}) || !bytes.Equal(cert.SignatureKey.Marshal(), unit.Marshal()) {
		return false
	}
	key, ok := cert.Key.(ssh.CryptoPublicKey)
	if !ok {
		return false
	}
	public, ok := key.CryptoPublicKey().(ed25519.PublicKey)
	if !ok {
		return false
	}
	k.cert, k.private = cert, ed25519.PrivateKey(slices.Concat(k.seed, public))
	return true
}

// newKeyFromSeed is ed25519.NewKeyFromSeed without the tables that make it fast the
// second time: they take as long as a dozen keys without, in constant time, too.
func newKeyFromSeed(seed []byte) (ed25519.PrivateKey, error) {
	h := sha512.Sum512(seed)
	defer clear(h[:])
	s, err := edwards25519.NewScalar().SetBytesWithClamping(h[:32])
	if err != nil {
		return nil, errkind.Errorf(errkind.Internal, "scalar of a host key: %w", err)
	}
	public := new(edwards25519.Point).ScalarMult(s, edwards25519.NewGeneratorPoint()).Bytes()
	*s = edwards25519.Scalar{}
	return ed25519.PrivateKey(slices.Concat(seed, public)), nil
}

// certifyKeys has the unit certify the keys without a certificate, and stores
// them: a seed durably before it is used.
func (p *partition) certifyKeys(ctx context.Context, keys []*hostKey) error {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k *hostKey) bool { return k.cert != nil })
	if len(keys) == 0 {
		return nil
	}
	ask := make([]hsmapi.HostKey, len(keys))
	for i, k := range keys {
		public, err := ssh.NewPublicKey(k.private.Public())
		if err != nil {
			return errkind.Errorf(errkind.Internal, "host key of %s: %w", k.name, err)
		}
		ask[i] = hsmapi.HostKey{Service: k.name, Key: public}
	}
	certs, err := p.unit.now().CertifyHosts(ctx, ask...)
	if err != nil {
		return errkind.Errorf(errkind.Of(err), "certify the host keys: %w", err)
	}
	seeds := false
	err = p.store.Update(ctx, func(tx *store.Tx) error {
		b := tx.Bucket(bucketHost)
		for i, k := range keys {
			k.cert = certs[i]
			seeds = seeds || k.fresh
			if k.fresh {
				if err := b.Put([]byte(k.name), k.seed); err != nil {
					return err
				}
			}
			if err := b.Put(certificateOf(k.name), k.cert.Marshal()); err != nil {
				return err
			}
		}
		return nil
	})
	if errkind.Is(err, errkind.Limit) && !seeds {
		return nil // on a full disk the unit is asked again at the next start
	}
	return err
}

// checkKeys computes the public halves again, which came from certificates. The
// tables that it makes for the curve are those by which the first signature for a
// client is made.
func (p *partition) checkKeys() error {
	for name, key := range p.private {
		if !ed25519.NewKeyFromSeed(key.Seed()).Equal(key) {
			return errkind.Errorf(errkind.Integrity, "the stored certificate of %s is for another key", name)
		}
	}
	return nil
}

func keyLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}
