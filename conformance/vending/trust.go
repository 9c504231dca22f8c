package vending

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// maxTrust bounds a file of certificates.
const maxTrust = 1 << 20

// Trust decides whether a server's certificate is the right one.
//
// A certificate that the file holds itself is trusted for any address, since a
// module is born with a self-signed certificate and does not know its name. Any
// other must chain to a certificate of the file and name the host. Both must be
// valid at the time of the handshake.
type Trust struct {
	certificates []*x509.Certificate
	now          func() time.Time
}

// UntrustedError is a server certificate that Trust refuses.
type UntrustedError struct{ err error }

func (e *UntrustedError) Error() string {
	return "the server's certificate is not trusted: " + e.err.Error()
}
func (e *UntrustedError) Unwrap() error { return e.err }

// LoadTrust reads a PEM file of certificates. now is the time of checking.
func LoadTrust(file string, now func() time.Time) (*Trust, error) {
	p, err := atomicfile.Read(file, maxTrust)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "read the certificates to trust: %w", err)
	}
	t, err := ParseTrust(p, now)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "%s: %w", file, err)
	}
	return t, nil
}

// ParseTrust reads PEM certificates.
func ParseTrust(p []byte, now func() time.Time) (*Trust, error) {
	t := &Trust{now: now}
	for {
		var block *pem.Block
		block, p = pem.Decode(p)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block is %q, not CERTIFICATE", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(t.certificates)+1, err)
		}
		t.certificates = append(t.certificates, c)
	}
	if len(t.certificates) == 0 {
		return nil, fmt.Errorf("no certificate in PEM form found")
	}
	return t, nil
}

// TLS returns the configuration of a connection to host.
func (t *Trust) TLS(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		// VerifyConnection below decides, on every handshake; the built-in check
		// cannot trust one certificate whatever its name.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := t.check(state.PeerCertificates, host); err != nil {
				return &UntrustedError{err}
			}
			return nil
		},
	}
}

func (t *Trust) check(chain []*x509.Certificate, host string) error {
	if len(chain) == 0 {
		return fmt.Errorf("none was sent")
	}
	leaf, now := chain[0], t.now()
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range t.certificates {
		if bytes.Equal(c.Raw, leaf.Raw) {
			if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
				return fmt.Errorf("it is valid from %s to %s, now is %s",
					leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339), now.Format(time.RFC3339))
			}
			return nil
		}
		roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: intermediates, CurrentTime: now})
	return err
}
