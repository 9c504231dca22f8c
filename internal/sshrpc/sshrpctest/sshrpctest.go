// Package sshrpctest makes units, host certificates and services for tests.
package sshrpctest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
)

// Ed25519 makes a private key.
func Ed25519(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

// Key makes a client or unit key.
func Key(t testing.TB) ssh.Signer {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(Ed25519(t))
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// Certificate is a host certificate of key that unit signed for principal.
func Certificate(t testing.TB, unit ssh.Signer, key ssh.PublicKey, principal string) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key, CertType: ssh.HostCert, KeyId: principal, ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity,
	}
	if err := cert.SignCert(rand.Reader, unit); err != nil {
		t.Fatal(err)
	}
	return cert
}

// HostKey makes a host key whose certificate unit signed for principal.
func HostKey(t testing.TB, unit ssh.Signer, principal string) ssh.Signer {
	t.Helper()
	host := Key(t)
	signer, err := ssh.NewCertSigner(Certificate(t, unit, host.PublicKey(), principal), host)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// Authorised is the one key a service accepts, changeable while it runs.
type Authorised struct {
	mu  sync.Mutex
	key ssh.PublicKey
}

// Set replaces the key; nil: nobody.
func (a *Authorised) Set(key ssh.PublicKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.key = key
}

// Get is ServerConfig.Authorised.
func (a *Authorised) Get() (ssh.PublicKey, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.key, a.key != nil
}

// Serve runs cfg on a free loopback port until the test ends and returns the
// port's address. A missing Log is silent.
func Serve(t testing.TB, cfg sshrpc.ServerConfig) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ServeListener(t, l, cfg)
	return l.Addr().String()
}

// ServeListener runs cfg on l until the test ends.
func ServeListener(t testing.TB, l net.Listener, cfg sshrpc.ServerConfig) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sshrpc.Serve(ctx, l, cfg) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("service %s: %v", cfg.Service, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("service %s did not end", cfg.Service)
		}
	})
}

// Processor is a ServerConfig.Processor that serves every session with p.
func Processor(p thrift.TProcessor) func(sshrpc.Session) thrift.TProcessor {
	return func(sshrpc.Session) thrift.TProcessor { return p }
}
