package hsmapi

import (
	"context"
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// link is a connection whose reader it owns.
type link struct {
	conn      *fdrpc.Conn
	stop      context.CancelFunc
	done      chan struct{}
	dismissed atomic.Bool
}

func newLink(uc *net.UnixConn) *link {
	ctx, stop := context.WithCancel(context.Background())
	l := &link{stop: stop, done: make(chan struct{})}
	l.conn = fdrpc.New(uc, l.answer)
	go func() {
		defer close(l.done)
		_ = l.conn.Run(ctx) // however it ended, the unit is gone
	}()
	return l
}

// answer is for the one thing that the unit may say by itself.
func (l *link) answer(_ context.Context, _ *fdrpc.Conn, r fdrpc.Request) (fdrpc.Reply, error) {
	for _, f := range r.Files {
		_ = f.Close()
	}
	if r.Method != MethodDismiss {
		return fdrpc.Reply{}, errkind.Errorf(errkind.Invalid, "unknown method %q", r.Method)
	}
	l.dismissed.Store(true)
	return fdrpc.Reply{Sent: l.stop}, nil
}

// Done is closed when the connection to the unit is gone.
func (l *link) Done() <-chan struct{} { return l.done }

// Close ends the connection and waits for its reader.
func (l *link) Close() error {
	l.stop()
	<-l.done
	return nil
}

// Time reads the module's clock.
func (l *link) Time(ctx context.Context) (Time, error) {
	var t Time
	err := l.conn.Ask(ctx, MethodTime, nil, &t)
	return t, err
}

// HostKey is a service's host key that the unit is to certify.
type HostKey struct {
	Service string
	Key     ssh.PublicKey
}

// CertifyHosts has the unit certify host keys. On a Channel the principals name
// the channel's partition.
func (l *link) CertifyHosts(ctx context.Context, keys ...HostKey) ([]*ssh.Certificate, error) {
	var in CertifyHosts
	for _, k := range keys {
		in.Hosts = append(in.Hosts, Host{Service: k.Service, Key: string(ssh.MarshalAuthorizedKey(k.Key))})
	}
	var out HostCertificates
	if err := l.conn.Ask(ctx, MethodCertifyHosts, in, &out); err != nil {
		return nil, err
	}
	if len(out.Certificates) != len(keys) {
		return nil, errkind.Errorf(errkind.Integrity, "the unit answered %d host certificates for %d keys", len(out.Certificates), len(keys))
	}
	certs := make([]*ssh.Certificate, len(keys))
	for i, text := range out.Certificates {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
		if err != nil {
			return nil, errkind.Errorf(errkind.Integrity, "host certificate of %s: %w", keys[i].Service, err)
		}
		cert, ok := key.(*ssh.Certificate)
		if !ok {
			return nil, errkind.Errorf(errkind.Integrity, "host certificate of %s: the unit answered a bare key", keys[i].Service)
		}
		certs[i] = cert
	}
	return certs, nil
}

// CertifyHost has the unit certify one host key.
func (l *link) CertifyHost(ctx context.Context, service string, key ssh.PublicKey) (*ssh.Certificate, error) {
	certs, err := l.CertifyHosts(ctx, HostKey{Service: service, Key: key})
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// Client is the orchestrator's connection to the unit. Its methods may be
// called concurrently.
type Client struct{ *link }

// Dial connects to the unit's socket.
func Dial(ctx context.Context, socket string) (*Client, error) {
	uc, err := fdrpc.Dial(ctx, socket)
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "no module at %s; is hsmd running? %w", socket, err)
	}
	return &Client{newLink(uc)}, nil
}

// Identity says who the unit is. It also answers on a tampered unit.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	var id Identity
	err := c.conn.Ask(ctx, MethodIdentity, nil, &id)
	return id, err
}

// Create makes a partition, or answers the one that exists with the same parameters.
func (c *Client) Create(ctx context.Context, in CreatePartition) (Partition, error) {
	var p Partition
	err := c.conn.Ask(ctx, MethodCreate, in, &p)
	return p, err
}

// Attach hands the unit its end of a VCM's device channel. there stays open on
// this side and must be closed by the caller, or the VCM's end never sees the
// unit go.
func (c *Client) Attach(ctx context.Context, in Attach, there *os.File) error {
	return c.conn.Ask(ctx, MethodAttach, in, nil, there)
}

// Protect puts a partition's key under a tenant's share, another one or none.
func (c *Client) Protect(ctx context.Context, in Protect) (Partition, error) {
	var p Partition
	err := c.conn.Ask(ctx, MethodProtect, in, &p)
	return p, err
}

// Destroy destroys a partition and its key; one that does not exist is no error.
func (c *Client) Destroy(ctx context.Context, uuid string) error {
	return c.conn.Ask(ctx, MethodDestroy, Destroy{UUID: uuid}, nil)
}

// Partitions lists every partition in the order of UUIDs.
func (c *Client) Partitions(ctx context.Context) ([]Partition, error) {
	var all []Partition
	after := ""
	for {
		var page Page
		if err := c.conn.Ask(ctx, MethodPartitions, List{After: after}, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Partitions...)
		if !page.More || len(page.Partitions) == 0 {
			return all, nil
		}
		after = page.Partitions[len(page.Partitions)-1].UUID
	}
}

// Sign returns an armored SSHSIG of message by the unit key.
func (c *Client) Sign(ctx context.Context, namespace string, message []byte) (string, error) {
	var sig Signature
	err := c.conn.Ask(ctx, MethodSign, Sign{Namespace: namespace, Message: message}, &sig)
	return sig.Armored, err
}

// SetTime sets the module's clock and answers both clocks.
func (c *Client) SetTime(ctx context.Context, in SetTime) (Time, error) {
	var t Time
	err := c.conn.Ask(ctx, MethodSetTime, in, &t)
	return t, err
}

// Factory returns the unit to factory state.
func (c *Client) Factory(ctx context.Context) error {
	return c.conn.Ask(ctx, MethodFactory, nil, nil)
}
