// Package standin is a PrismToken server for tests of vending clients: real TLS,
// real framing and real tokens from a fixed test key, but no module behind it,
// no limits, no roles and no storage.
package standin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// User and Password sign in.
const (
	User     = "vendor"
	Password = "Correct-horse-1"
)

// Server listens until its test ends.
type Server struct {
	Address string
	// Certificate is its self-signed certificate in PEM form.
	Certificate []byte
	*Handler

	listener net.Listener
	work     sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool
}

// Start runs a server on a free loopback port.
func Start(t testing.TB) *Server {
	t.Helper()
	pair, certificate := selfSigned(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: l.Addr().String(), Certificate: certificate, Handler: newHandler(), listener: l, open: map[net.Conn]bool{}}
	s.work.Go(s.accept)
	t.Cleanup(s.stop)
	return s
}

// Files writes the certificate and the password into dir, as a client's
// --ca and --password-file.
func (s *Server) Files(dir string) (ca, password string, err error) {
	ca, password = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "password")
	if err := os.WriteFile(ca, s.Certificate, 0o600); err != nil {
		return "", "", err
	}
	return ca, password, os.WriteFile(password, []byte(Password+"\n"), 0o600)
}

// Hangup closes every connection; new ones are accepted.
func (s *Server) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		_ = c.Close()
	}
}

func (s *Server) stop() {
	_ = s.listener.Close()
	s.Hangup()
	s.work.Wait()
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // stop closed the listener
		}
		s.mu.Lock()
		s.open[conn] = true
		s.mu.Unlock()
		s.work.Go(func() {
			s.serve(conn)
			s.mu.Lock()
			delete(s.open, conn)
			s.mu.Unlock()
			_ = conn.Close()
		})
	}
}

const maxFrame = 1 << 20

func (s *Server) serve(conn net.Conn) {
	conf := &thrift.TConfiguration{MaxFrameSize: maxFrame, MaxMessageSize: maxFrame, SocketTimeout: time.Minute}
	framed := thrift.NewTFramedTransportConf(thrift.NewTBufferedTransport(thrift.NewTSSLSocketFromConnConf(conn, conf), 4096), conf)
	protocol := thrift.NewTBinaryProtocolConf(framed, conf)
	processor := prismtoken1.NewTokenApiProcessor(s.Handler)
	for {
		// A call that was answered with an exception is an error too; only a
		// broken or abandoned one ends the connection.
		if more, _ := processor.Process(context.Background(), protocol, protocol); !more {
			return
		}
	}
}

func selfSigned(t testing.TB) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "stand-in"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func apiError(code, format string, args ...any) error {
	return &prismtoken1.ApiException{ECode: code, EMsgEn: fmt.Sprintf(format, args...)}
}
