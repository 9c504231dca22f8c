package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"golang.org/x/crypto/ssh"
)

// serviceTimeout bounds the set-up of a session; a call is bounded by its context.
const serviceTimeout = 30 * time.Second

// maxMessage bounds one answer of a service: a list of a thousand VCMs.
const maxMessage = 64 << 20

// Service is a session with one of the SSH services, made as a provider or a
// tenant would make it who writes his own client from the published interfaces.
type Service struct {
	nc     net.Conn
	client *ssh.Client
	thrift thrift.TClient
}

// DialService opens a session. unit must have signed the host's certificate.
func DialService(ctx context.Context, address, service string, key ssh.Signer, unit ssh.PublicKey) (*Service, error) {
	ctx, cancel := context.WithTimeout(ctx, serviceTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	s, err := openService(nc, address, service, key, unit)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("service %s at %s: %w", service, address, err)
	}
	return s, nil
}

func openService(nc net.Conn, address, service string, key ssh.Signer, unit ssh.PublicKey) (*Service, error) {
	checker := ssh.CertChecker{IsHostAuthority: func(k ssh.PublicKey, _ string) bool { return bytes.Equal(k.Marshal(), unit.Marshal()) }}
	conn, channels, requests, err := ssh.NewClientConn(nc, address, &ssh.ClientConfig{
		User: service, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyAlgorithms: []string{ssh.CertAlgoED25519v01},
		HostKeyCallback: func(_ string, _ net.Addr, host ssh.PublicKey) error {
			cert, ok := host.(*ssh.Certificate)
			if !ok || cert.CertType != ssh.HostCert || !checker.IsHostAuthority(cert.SignatureKey, address) || len(cert.ValidPrincipals) == 0 {
				return errors.New("the host's certificate is not the unit's")
			}
			return checker.CheckCert(cert.ValidPrincipals[0], cert)
		},
	})
	if err != nil {
		return nil, err
	}
	client := ssh.NewClient(conn, channels, requests)
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	in, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := session.RequestSubsystem(service); err != nil {
		return nil, err
	}
	cfg := &thrift.TConfiguration{MaxMessageSize: maxMessage, MaxFrameSize: maxMessage}
	framed := thrift.NewTFramedTransportConf(thrift.NewStreamTransport(out, in), cfg)
	protocol := thrift.NewTBinaryProtocolConf(framed, cfg)
	return &Service{nc: nc, client: client, thrift: &bounded{nc: nc, next: thrift.NewTStandardClient(protocol, protocol)}}, nil
}

// Thrift returns the session as the client side of generated code. Calls are
// made one after another; after one that its context ended there are no more.
func (s *Service) Thrift() thrift.TClient { return s.thrift }

// Close ends the session.
func (s *Service) Close() {
	_ = s.client.Close()
	_ = s.nc.Close()
}

// bounded ends a call with its context by closing the connection.
type bounded struct {
	nc   net.Conn
	next thrift.TClient
}

func (b *bounded) Call(ctx context.Context, method string, args, result thrift.TStruct) (thrift.ResponseMeta, error) {
	stop := context.AfterFunc(ctx, func() { _ = b.nc.Close() })
	defer stop()
	meta, err := b.next.Call(ctx, method, args, result)
	if err != nil && ctx.Err() != nil {
		return meta, context.Cause(ctx)
	}
	return meta, err
}
