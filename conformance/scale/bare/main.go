// Command bare is what the start of a VCM is measured against: a Go process that
// serves the same inherited listeners, the token service with TLS and the others
// with SSH, and does nothing else. It writes one byte to descriptor 3 when it
// serves, and ends when that is closed.
package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func serve() error {
	n, err := strconv.Atoi(os.Args[1]) // listeners, from descriptor 4
	if err != nil {
		return err
	}
	cert, err := certificate()
	if err != nil {
		return err
	}
	for i := range n {
		f := os.NewFile(uintptr(4+i), "listener")
		l, err := net.FileListener(f)
		if err != nil {
			return err
		}
		_ = f.Close()
		if i == 0 {
			go accept(l, func(c net.Conn) { _ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake() })
			continue
		}
		cfg, err := host()
		if err != nil {
			return err
		}
		go accept(l, func(c net.Conn) { _, _, _, _ = ssh.NewServerConn(c, cfg) })
	}
	parent := os.NewFile(3, "parent")
	if _, err := parent.Write([]byte{1}); err != nil {
		return err
	}
	_, _ = parent.Read(make([]byte, 1))
	return nil
}

func accept(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { defer c.Close(); serve(c) }()
	}
}

func host() (*ssh.ServerConfig, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
		return nil, fmt.Errorf("nobody may")
	}}
	cfg.AddHostKey(signer)
	return cfg, nil
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
