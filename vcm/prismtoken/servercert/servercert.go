// Package servercert keeps the TLS key and certificate of a VCM's token service:
// self-signed from the first start on, replaced by a chain that the tenant
// imports or by a new self-signed one on request.
package servercert

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// lifetime of a self-signed certificate. Clients pin it, so it is long.
const lifetime = 5 * 365 * 24 * time.Hour

// Records of the bucket.
const bucket = "tls"

var (
	recordChain = []byte("chain") // PEM, leaf first
	recordKey   = []byte("key")   // PKCS #8, DER; the store seals it
)

// Config is what a certificate needs.
type Config struct {
	Store       *store.Store
	Audit       accounts.AuditFunc
	Preferences *accounts.Preferences
	Clock       clock.Clock
	// Names are the DNS names and IP addresses to put into a generated
	// certificate; the first is its common name.
	Names []string
	Log   *slog.Logger
}

// Certificate is the current one. It is safe for concurrent use.
type Certificate struct {
	cfg     Config
	changes sync.Mutex
	current atomic.Pointer[loaded]
}

type loaded struct {
	tls  *tls.Certificate
	leaf *x509.Certificate
	pem  string
}

// Open reads the certificate from the store, or makes one.
func Open(ctx context.Context, cfg Config) (*Certificate, error) {
	c := &Certificate{cfg: cfg}
	var chain, key []byte
	err := cfg.Store.View(ctx, func(tx *store.Tx) error {
		for _, r := range []struct {
			name []byte
			into *[]byte
		}{{recordChain, &chain}, {recordKey, &key}} {
			v, err := tx.Bucket(bucket).Get(r.name)
			if err != nil {
				return err
			}
			*r.into = append([]byte(nil), v...)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 || len(key) == 0 {
		return c, c.Generate(ctx, accounts.Actor{Realm: "system", Name: "vcm"})
	}
	private, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "stored TLS key: %w", err)
	}
	l, err := assemble(string(chain), private)
	if err != nil {
		return nil, err
	}
	c.current.Store(l)
	return c, nil
}

// assemble checks that a chain hangs together and belongs to the key.
func assemble(chainPEM string, private crypto.PrivateKey) (*loaded, error) {
	cert := &tls.Certificate{PrivateKey: private}
	var parsed []*x509.Certificate
	canonical := ""
	for rest := []byte(chainPEM); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errkind.Errorf(errkind.Invalid, "the chain holds a PEM block of type %q, expected certificates only", block.Type)
		}
		x, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errkind.Errorf(errkind.Invalid, "certificate %d of the chain: %w", len(parsed)+1, err)
		}
		if n := len(parsed); n > 0 {
			if err := parsed[n-1].CheckSignatureFrom(x); err != nil {
				return nil, errkind.Errorf(errkind.Invalid, "certificate %d is not signed by the one after it: %w", n, err)
			}
		}
		parsed = append(parsed, x)
		cert.Certificate = append(cert.Certificate, x.Raw)
		canonical += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x.Raw}))
	}
	if len(parsed) == 0 {
		return nil, errkind.Errorf(errkind.Invalid, "no certificate in PEM form was given")
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, errkind.Errorf(errkind.Invalid, "the key cannot sign")
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(parsed[0].PublicKey) {
		return nil, errkind.Errorf(errkind.Invalid, "the key does not belong to the first certificate of the chain")
	}
	cert.Leaf = parsed[0]
	return &loaded{cert, parsed[0], canonical}, nil
}

// Get is a tls.Config.GetCertificate.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load().tls, nil
}

// PEM returns the chain, leaf first.
func (c *Certificate) PEM() string { return c.current.Load().pem }

// SHA256 is the leaf's fingerprint, in hex.
func (c *Certificate) SHA256() string {
	sum := sha256.Sum256(c.current.Load().leaf.Raw)
	return hex.EncodeToString(sum[:])
}

// Expires is when the leaf does.
func (c *Certificate) Expires() time.Time { return c.current.Load().leaf.NotAfter }

// Generate replaces key and certificate by a new self-signed one, of the kind
// that the preference tls.key_data names.
func (c *Certificate) Generate(ctx context.Context, by accounts.Actor) error {
	kind := c.cfg.Preferences.Text(accounts.PrefTLSKey)
	private, err := newKey(kind)
	if err != nil {
		return errkind.Errorf(errkind.Internal, "new TLS key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return errkind.Errorf(errkind.Internal, "certificate serial number: %w", err)
	}
	now := c.cfg.Clock.Now().UTC()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "PrismToken"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(lifetime).Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for i, n := range c.cfg.Names {
		if i == 0 && n != "" {
			template.Subject.CommonName = n
		}
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if n != "" {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return errkind.Errorf(errkind.Internal, "new certificate: %w", err)
	}
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return c.replace(ctx, by, "tls.generate", chain, private)
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "RSA-2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "RSA-3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "EC-P384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
}

// Import replaces key and certificate by a chain, leaf first, and its key in
// PKCS #8, PKCS #1 or SEC 1 form.
func (c *Certificate) Import(ctx context.Context, by accounts.Actor, chainPEM, keyPEM string) error {
	block, _ := pem.Decode([]byte(keyPEM))
	if block == nil {
		return errkind.Errorf(errkind.Invalid, "no key in PEM form was given")
	}
	private, err := parseKey(block)
	if err != nil {
		return errkind.Errorf(errkind.Invalid, "the key cannot be read: use an unencrypted PKCS #8, PKCS #1 or SEC 1 key")
	}
	return c.replace(ctx, by, "tls.import", chainPEM, private)
}

func parseKey(b *pem.Block) (crypto.PrivateKey, error) {
	switch b.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(b.Bytes)
	default:
		return x509.ParsePKCS8PrivateKey(b.Bytes)
	}
}

func (c *Certificate) replace(ctx context.Context, by accounts.Actor, kind, chain string, private crypto.PrivateKey) error {
	next, err := assemble(chain, private)
	if err != nil {
		return err
	}
	now := c.cfg.Clock.Now().UTC()
	if now.After(next.leaf.NotAfter) || now.Before(next.leaf.NotBefore) {
		return errkind.Errorf(errkind.Invalid, "the certificate is valid from %s to %s, and it is %s",
			next.leaf.NotBefore.Format(time.RFC3339), next.leaf.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return errkind.Errorf(errkind.Invalid, "the key cannot be stored: %w", err)
	}
	c.changes.Lock()
	defer c.changes.Unlock()
	before := "none"
	if c.current.Load() != nil {
		before = c.SHA256()
	}
	sum := sha256.Sum256(next.leaf.Raw)
	err = c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		b := tx.Bucket(bucket)
		if err := b.Put(recordChain, []byte(next.pem)); err != nil {
			return err
		}
		if err := b.Put(recordKey, der); err != nil {
			return err
		}
		return c.cfg.Audit(tx, auditlog.Entry{
			Time: now, Kind: kind, Actor: by.String(), Subject: "tls",
			Detail: map[string]string{"before": before, "after": hex.EncodeToString(sum[:]), "notAfter": next.leaf.NotAfter.Format(time.RFC3339)},
		})
	})
	if err == nil {
		c.current.Store(next)
	}
	return err
}
