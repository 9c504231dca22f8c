package sshrpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// ClientConfig says which service to use and how to recognise it.
type ClientConfig struct {
	Service string
	Address string     // host:port
	Signer  ssh.Signer // the service's client key
	// UnitKey must have signed the host's certificate, which must name
	// Principal (hsmapi.Principal).
	UnitKey   ssh.PublicKey
	Principal string
	// Timeout bounds the connection's set-up and each call whose context has
	// no deadline of its own; 30 s if zero.
	Timeout time.Duration
	// Clock checks the certificate's validity; the system's if nil.
	Clock clock.Clock
}

// Client is one session with a service. Calls are made one after another. After
// an error of transport or an expired context it is of no more use.
type Client struct {
	cfg     ClientConfig
	nc      net.Conn
	conn    ssh.Conn
	channel ssh.Channel
	running sync.WaitGroup

	mu     sync.Mutex // one call at a time
	broken error
}

// Dial connects, verifies the host certificate, proves the client key and opens
// the service's subsystem.
func Dial(ctx context.Context, cfg ClientConfig) (*Client, error) {
	if cfg.Signer == nil || cfg.UnitKey == nil || cfg.Principal == "" {
		return nil, errkind.Errorf(errkind.Internal, "sshrpc %s: Signer, UnitKey and Principal are needed", cfg.Service)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System()
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "service %s at %s cannot be reached: %w", cfg.Service, cfg.Address, err)
	}
	c := &Client{cfg: cfg, nc: nc}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	err = c.open()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = c.Close()
		return nil, c.dialError(ctx, err)
	}
	return c, nil
}

func (c *Client) open() error {
	var hostErr error
	sc, channels, requests, err := ssh.NewClientConn(c.nc, c.cfg.Address, &ssh.ClientConfig{
		User:              c.cfg.Service,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(c.cfg.Signer)},
		ClientVersion:     "SSH-2.0-Tesserae",
		HostKeyAlgorithms: hostAlgorithms(),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			hostErr = c.cfg.checkHost(key)
			return hostErr
		},
	})
	if hostErr != nil {
		return hostErr
	}
	if err != nil {
		return err
	}
	c.conn = sc
	c.running.Go(func() { ssh.DiscardRequests(requests) })
	c.running.Go(func() {
		for ch := range channels {
			_ = ch.Reject(ssh.Prohibited, "a client opens the channels")
		}
	})
	channel, channelRequests, err := sc.OpenChannel("session", nil)
	if err != nil {
		return err
	}
	c.channel = channel
	c.running.Go(func() { ssh.DiscardRequests(channelRequests) })
	c.running.Go(func() { _, _ = io.Copy(io.Discard, channel.Stderr()) })
	ok, err := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{c.cfg.Service}))
	if err == nil && !ok {
		err = errkind.Errorf(errkind.Refused, "this is another service: it has no subsystem %q", c.cfg.Service)
	}
	return err
}

func (c *Client) dialError(ctx context.Context, err error) error {
	at := "service " + c.cfg.Service + " at " + c.cfg.Address
	var kind *errkind.Error
	switch {
	case errors.As(err, &kind):
		return errkind.Errorf(kind.Kind, "%s: %w", at, err)
	case ctx.Err() != nil:
		return errkind.Errorf(errkind.Unavailable, "%s did not answer in time: %w", at, context.Cause(ctx))
	case strings.Contains(err.Error(), "unable to authenticate"):
		return errkind.Errorf(errkind.Unauthorised, "%s does not accept the client key %s; another key is installed there",
			at, ssh.FingerprintSHA256(c.cfg.Signer.PublicKey()))
	case strings.Contains(err.Error(), "no common algorithm for host key"):
		return errkind.Errorf(errkind.Integrity, "%s shows no host certificate, so it cannot be recognised", at)
	}
	return errkind.Errorf(errkind.Unavailable, "%s: %w", at, err)
}

// hostAlgorithms lists host certificates only: a plain host key proves nothing here.
func hostAlgorithms() []string {
	return []string{ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
		ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}
}

func (cfg ClientConfig) checkHost(key ssh.PublicKey) error {
	return CheckHostCertificate(key, cfg.UnitKey, cfg.Principal, cfg.Clock.Now())
}

// CheckHostCertificate reports whether key is a host certificate that unit
// signed for principal and that is valid at now.
func CheckHostCertificate(key, unit ssh.PublicKey, principal string, now time.Time) error {
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.HostCert {
		return errkind.Errorf(errkind.Integrity, "the host shows no host certificate, so it cannot be recognised")
	}
	if !bytes.Equal(cert.SignatureKey.Marshal(), unit.Marshal()) {
		return errkind.Errorf(errkind.Integrity, "the host certificate is signed by %s, not by the unit's key %s",
			ssh.FingerprintSHA256(cert.SignatureKey), ssh.FingerprintSHA256(unit))
	}
	// An empty list would be valid for every name.
	if !slices.Contains(cert.ValidPrincipals, principal) {
		return errkind.Errorf(errkind.Integrity, "the host certificate is for %q, not for %q", strings.Join(cert.ValidPrincipals, ","), principal)
	}
	checker := ssh.CertChecker{Clock: func() time.Time { return now }}
	if err := checker.CheckCert(principal, cert); err != nil {
		return errkind.Errorf(errkind.Integrity, "the host certificate for %q is not valid: %w", principal, err)
	}
	return nil
}

// Close ends the session and waits for its goroutines.
func (c *Client) Close() error {
	err := c.nc.Close()
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.running.Wait()
	return err
}

// Thrift returns the session as the client side of generated code.
func (c *Client) Thrift() thrift.TClient { return (*caller)(c) }

// Stream returns the session of a raw service; Close ends it.
func (c *Client) Stream() io.ReadWriter { return c.channel }
