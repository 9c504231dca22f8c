package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/embedded"
)

// connectEtcd starts the embedded server or connects to the cluster.
func (s *stage) connectEtcd(ctx context.Context) (*clientv3.Client, func() error, error) {
	if s.etcd == embeddedEtcd {
		server, err := embedded.Start(ctx, embedded.Config{Dir: filepath.Join(s.state, "etcd"), Log: s.log})
		if err != nil {
			return nil, nil, err
		}
		return server.Client(), func() error { server.Close(); return nil }, nil
	}
	security, err := s.etcdTLS()
	if err != nil {
		return nil, nil, err
	}
	client, err := registry.Dial(strings.Split(s.etcd, ","), security)
	if err != nil {
		return nil, nil, err
	}
	return client, client.Close, nil
}

// etcdTLS is nil for a cluster without TLS, which its endpoints say (http).
func (s *stage) etcdTLS() (*tls.Config, error) {
	if s.etcdCA == "" && s.etcdCert == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.etcdCA != "" {
		pem, err := os.ReadFile(s.etcdCA)
		if err != nil {
			return nil, errkind.Errorf(errkind.Invalid, "--etcd-ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errkind.Errorf(errkind.Invalid, "--etcd-ca %s holds no certificate", s.etcdCA)
		}
	}
	if s.etcdCert != "" {
		pair, err := tls.LoadX509KeyPair(s.etcdCert, s.etcdKey)
		if err != nil {
			return nil, errkind.Errorf(errkind.Invalid, "--etcd-cert and --etcd-key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
