// Package sshrpc carries one administrative service over SSH.
//
// One service is one listener, one host key and one authorised client key. That
// is what keeps the services apart: whoever holds the key of one of them holds
// nothing of the others. Clients authenticate with a public key and nothing
// else, and a session is authorised from the key the connection proved, looked
// at when the session starts; nothing is remembered from the keys that a client
// merely offered.
//
// A session is a subsystem called like the service. It carries framed binary
// Thrift (four bytes of length, then one message), or, for a service that
// speaks a protocol of its own, the plain byte stream. There is no shell, no
// command, no environment, no agent, no terminal and no port forwarding.
//
// A client accepts a host only by its certificate: signed by the unit's key and
// naming the service as its principal. There is no trust on first use.
//
// Errors cross the wire as failure.Failure, made from and turned back into
// internal/errkind here and nowhere else. A handler returns its error as it is.
package sshrpc

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Session is the client of one session, as proved.
type Session struct {
	Service string
	Key     ssh.PublicKey
	Remote  net.Addr
}

// Limits bound what clients can take. A zero field takes its default.
type Limits struct {
	Connections     int           // at once, 64
	PerSource       int           // connections of one IPv4 address or IPv6 /64, 32
	Unauthenticated int           // connections still in their handshake, 16
	Sessions        int           // of one connection, 8
	Frame           int           // bytes of a request, 4 MiB
	Handshake       time.Duration // until the client has proved its key, 10 s
	FrameTime       time.Duration // from a request's first byte to its last, and to write an answer, 10 s
	Idle            time.Duration // without a byte from the client, 5 min
	Drain           time.Duration // for calls in progress once the service ends, 10 s
}

// maxAnswer bounds an answer: a list of a thousand VCMs fits.
const maxAnswer = 16 << 20

func (l Limits) withDefaults() Limits {
	number := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	span := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	number(&l.Connections, 64)
	number(&l.PerSource, 32)
	number(&l.Unauthenticated, 16)
	number(&l.Sessions, 8)
	number(&l.Frame, 4<<20)
	span(&l.Handshake, 10*time.Second)
	span(&l.FrameTime, 10*time.Second)
	span(&l.Idle, 5*time.Minute)
	span(&l.Drain, 10*time.Second)
	return l
}

// ServerConfig describes one service.
type ServerConfig struct {
	// Service is the service's name and that of its subsystem.
	Service string
	// HostKey signs for the host; its public key is a host certificate where
	// clients are to accept it.
	HostKey ssh.Signer
	// Authorised returns the one client key that may use the service now, and
	// false if there is none. It is asked at each authentication and again at
	// the start of each session.
	Authorised func() (ssh.PublicKey, bool)
	// Processor returns the service for one session. Exactly one of Processor
	// and Raw is set.
	Processor func(Session) thrift.TProcessor
	// Raw serves one session as a byte stream. Reads end with io.EOF when the
	// client is done or the service ends; Raw then returns.
	Raw    func(ctx context.Context, s Session, stream io.ReadWriteCloser) error
	Log    *slog.Logger
	Limits Limits
}

func (c ServerConfig) check() error {
	switch {
	case c.Service == "":
		return errkind.Errorf(errkind.Internal, "sshrpc: a service needs a name")
	case c.HostKey == nil || c.Authorised == nil || c.Log == nil:
		return errkind.Errorf(errkind.Internal, "sshrpc %s: HostKey, Authorised and Log are needed", c.Service)
	case (c.Processor == nil) == (c.Raw == nil):
		return errkind.Errorf(errkind.Internal, "sshrpc %s: exactly one of Processor and Raw is needed", c.Service)
	}
	return nil
}

// authorised reports whether key is the one that may use the service now. A
// certificate is never equal to a plain key.
func (c ServerConfig) authorised(key ssh.PublicKey) bool {
	want, ok := c.Authorised()
	return ok && want != nil && key != nil && bytes.Equal(want.Marshal(), key.Marshal())
}
