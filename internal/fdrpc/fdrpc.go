// Package fdrpc is the protocol between Tesserae's own processes on one host:
// one JSON message a packet over a unix SOCK_SEQPACKET socket, with file
// descriptors attached (SCM_RIGHTS). Both ends may call the other.
//
// A packet is at most MaxPacket bytes and carries at most MaxFiles descriptors.
// A message is a call {id, method, body} or an answer {id, re: true, body} or
// {id, re: true, kind, error}. Unknown fields are refused.
//
// The peer may be hostile: a vcmd belongs to its tenant. A malformed packet, an
// oversized one, or a peer that does not read ends the connection, unless it is
// made to last; calls in progress are bounded; descriptors nobody asked for are closed.
package fdrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	// MaxPacket is the size limit of one message in bytes.
	MaxPacket = 128 << 10
	// MaxFiles is the number of descriptors one message may carry.
	MaxFiles = 32
	// maxInFlight bounds the calls one peer may have in progress. More of them
	// wait in the socket, and then in the peer.
	maxInFlight = 64
	// writeTimeout is how long a peer may leave its socket full before the
	// connection is given up.
	writeTimeout = 10 * time.Second
)

type message struct {
	ID     uint64          `json:"id"`
	Re     bool            `json:"re,omitempty"`
	Method string          `json:"method,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Kind   string          `json:"kind,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Request is a call from the peer. The handler owns Files and closes them.
type Request struct {
	Method string
	Body   json.RawMessage
	Files  []*os.File
}

// Decode reads the request's body strictly into v.
func (r Request) Decode(v any) error {
	if err := decodeStrict(r.Body, v); err != nil {
		return errkind.Errorf(errkind.Invalid, "%s: bad body: %w", r.Method, err)
	}
	return nil
}

// Reply is a handler's answer. Conn closes Files once they are sent, and then
// calls Sent, also if they could not be: what it starts may end the connection.
type Reply struct {
	Body  any
	Files []*os.File
	Sent  func()
}

// Handler answers the peer's calls. Calls run concurrently.
type Handler func(ctx context.Context, c *Conn, r Request) (Reply, error)

// Conn is one end of a connection.
type Conn struct {
	uc      *net.UnixConn
	handler Handler

	writeMu sync.Mutex

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]chan answer
	closed  error
	lasting bool // guarded by writeMu
}

type answer struct {
	msg   message
	files []*os.File
}

// New wraps uc. A nil handler refuses every call of the peer. Run must be
// called for any answer to arrive.
func New(uc *net.UnixConn, h Handler) *Conn {
	if h == nil {
		h = func(_ context.Context, _ *Conn, r Request) (Reply, error) {
			return Reply{}, errkind.Errorf(errkind.Invalid, "unknown method %q", r.Method)
		}
	}
	return &Conn{uc: uc, handler: h, waiting: map[uint64]chan answer{}}
}

// From makes the ids of this end's calls begin above id. Whoever takes a socket
// over from another process chooses one that no former user of the socket can
// have reached: an answer that was meant for him is then nobody's. It is called
// before the first Call.
func (c *Conn) From(id uint64) *Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID = id
	return c
}

// Lasting lets the connection live on when the peer does not read for a while:
// what cannot be sent then is dropped.
func (c *Conn) Lasting() *Conn {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.lasting = true
	return c
}

// Run reads messages until the peer closes, the context ends or the peer
// breaks the protocol. It returns after every handler it started has returned;
// nil means the peer closed the connection in good order.
func (c *Conn) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = c.uc.Close() })
	slots := make(chan struct{}, maxInFlight)
	var handlers sync.WaitGroup
	err := c.readAll(ctx, slots, &handlers)
	cancel()
	stop()
	_ = c.uc.Close()
	c.abandon(err)
	handlers.Wait()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *Conn) readAll(ctx context.Context, slots chan struct{}, handlers *sync.WaitGroup) error {
	raw, err := c.uc.SyscallConn()
	if err != nil {
		return err
	}
	oob := make([]byte, unix.CmsgSpace(MaxFiles*4))
	for {
		msg, files, err := read(raw, oob)
		if err != nil {
			return err
		}
		if msg.Re {
			c.deliver(msg, files)
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			closeAll(files)
			return ctx.Err()
		}
		handlers.Go(func() {
			defer func() { <-slots }()
			c.handle(ctx, msg, files)
		})
	}
}

func (c *Conn) handle(ctx context.Context, msg message, files []*os.File) {
	reply, err := c.handler(ctx, c, Request{Method: msg.Method, Body: msg.Body, Files: files})
	if reply.Sent != nil {
		defer reply.Sent()
	}
	defer closeAll(reply.Files)
	out := message{ID: msg.ID, Re: true}
	if err == nil {
		out.Body, err = json.Marshal(reply.Body)
	}
	if err == nil {
		if err = c.write(out, reply.Files); err == nil || errors.Is(err, errDropped) {
			return
		}
	}
	// The peer is told why; one that cannot be told is gone or does not read.
	out.Body, out.Kind, out.Error = nil, errkind.Of(err).String(), shorten(err.Error())
	if err := c.write(out, nil); err != nil && !errors.Is(err, errDropped) {
		_ = c.uc.Close()
	}
}

// shorten keeps an error's text within a packet, however much of it is escaped.
func shorten(text string) string {
	const limit = MaxPacket / 8
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return text
}

// Ask is Call for methods that answer without descriptors; any that come
// nevertheless are closed.
func (c *Conn) Ask(ctx context.Context, method string, in, out any, files ...*os.File) error {
	got, err := c.Call(ctx, method, in, out, files...)
	closeAll(got)
	return err
}

// Call sends method with body in (nil for none) and files, waits for the
// answer and decodes it into out (nil to ignore it). The descriptors that came
// with the answer belong to the caller. Sent files stay open on this side.
func (c *Conn) Call(ctx context.Context, method string, in, out any, files ...*os.File) ([]*os.File, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("%s: encode: %w", method, err)
	}
	ch := make(chan answer, 1)
	c.mu.Lock()
	if c.closed != nil {
		c.mu.Unlock()
		return nil, errkind.Errorf(errkind.Unavailable, "%s: connection closed: %w", method, c.closed)
	}
	c.nextID++
	id := c.nextID
	c.waiting[id] = ch
	c.mu.Unlock()

	if err := c.write(message{ID: id, Method: method, Body: body}, files); err != nil {
		c.forget(id, ch)
		return nil, errkind.Errorf(errkind.Unavailable, "%s: send: %w", method, err)
	}
	select {
	case a, ok := <-ch:
		if !ok {
			return nil, errkind.Errorf(errkind.Unavailable, "%s: the peer closed the connection", method)
		}
		if a.msg.Error != "" || a.msg.Kind != "" {
			closeAll(a.files)
			return nil, errkind.Errorf(errkind.Parse(a.msg.Kind), "%s", a.msg.Error)
		}
		if out != nil {
			if err := decodeStrict(a.msg.Body, out); err != nil {
				closeAll(a.files)
				return nil, errkind.Errorf(errkind.Integrity, "%s: bad answer: %w", method, err)
			}
		}
		return a.files, nil
	case <-ctx.Done():
		c.forget(id, ch)
		return nil, errkind.Errorf(errkind.Unavailable, "%s: %w", method, context.Cause(ctx))
	}
}

// Tell sends a call without a body, whose answer nobody waits for.
func (c *Conn) Tell(method string) error {
	c.mu.Lock()
	c.nextID++
	id := c.nextID
	c.mu.Unlock()
	return c.write(message{ID: id, Method: method}, nil)
}

// Close closes the connection; Run returns.
func (c *Conn) Close() error { return c.uc.Close() }

// Peer is who is at the other end, as the kernel saw it when it connected.
type Peer struct {
	PID      int
	UID, GID uint32
}

// Peer returns the peer's credentials.
func (c *Conn) Peer() (Peer, error) { return PeerOf(c.uc) }

// PeerOf returns the credentials of the process at the other end of uc.
func PeerOf(uc *net.UnixConn) (Peer, error) {
	raw, err := uc.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Peer{}, fmt.Errorf("peer credentials: %w", err)
	}
	if credErr != nil {
		return Peer{}, fmt.Errorf("peer credentials: %w", credErr)
	}
	return Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}, nil
}

func (c *Conn) deliver(msg message, files []*os.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.waiting[msg.ID]
	delete(c.waiting, msg.ID)
	if ch == nil { // the caller gave up; its descriptors must not leak
		closeAll(files)
		return
	}
	ch <- answer{msg, files} // buffered: never blocks
}

// forget drops a call whose caller gave up, and the descriptors of an answer
// that came in the same moment.
func (c *Conn) forget(id uint64, ch <-chan answer) {
	c.mu.Lock()
	delete(c.waiting, id)
	c.mu.Unlock()
	select {
	case a := <-ch:
		closeAll(a.files)
	default:
	}
}

func (c *Conn) abandon(err error) {
	if err == nil {
		err = io.EOF
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = err
	for id, ch := range c.waiting {
		close(ch)
		delete(c.waiting, id)
	}
}
