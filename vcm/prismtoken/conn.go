package prismtoken

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// conn is one client's connection.
type conn struct {
	server *Server
	raw    net.Conn
	tls    *tls.Conn
	// idle is since when the client owes a message, in Unix nanoseconds; 0
	// while a call is in progress.
	idle atomic.Int64
	// ending: no further message is read.
	ending atomic.Bool

	// What was read ahead: most messages come whole in one read.
	ahead  [readAhead]byte
	unread []byte

	header   [frameHeader]byte
	readSet  time.Time // when the deadline for the next message was set; zero: another one is set
	writeSet time.Time
}

// readAhead is more than most messages have.
const readAhead = 1 << 10

func newConn(s *Server, raw net.Conn) *conn {
	c := &conn{server: s, raw: raw, tls: tls.Server(raw, s.tls)}
	c.idle.Store(time.Now().UnixNano())
	return c
}

// finish ends the connection as soon as it is idle.
func (c *conn) finish() {
	c.ending.Store(true)
	if c.idle.Load() != 0 {
		c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

func (c *conn) serve(ctx, calls context.Context) {
	defer c.raw.Close()
	c.raw.SetDeadline(time.Now().Add(c.server.limits.Handshake))
	if err := c.tls.HandshakeContext(ctx); err != nil {
		c.server.log.Debug("TLS handshake failed", "client", c.raw.RemoteAddr(), "error", err)
		return
	}
	calls = withAddress(calls, addressOf(c.raw))
	for {
		err := c.exchange(calls)
		if err == nil && !c.ending.Load() {
			continue
		}
		var refused *frameError
		if errors.As(err, &refused) {
			c.refuse(refused)
		}
		if err != nil && !c.ending.Load() && !errors.Is(err, io.EOF) {
			c.server.log.Debug("connection ended", "client", c.raw.RemoteAddr(), "error", err)
		}
		c.raw.SetDeadline(time.Now().Add(time.Second)) // for the closing alert
		c.tls.Close()
		return
	}
}

// exchange reads one message, answers it, and returns an error when the
// connection is of no more use.
func (c *conn) exchange(calls context.Context) error {
	s := c.server
	if now := time.Now(); now.Sub(c.readSet) > s.limits.Idle/16 { // setting one is not free
		c.raw.SetReadDeadline(now.Add(s.limits.Idle))
		c.readSet = now
	}
	if c.ending.Load() { // asked after the deadline is set, see finish
		return nil
	}
	if len(c.unread) == 0 {
		n, err := c.tls.Read(c.ahead[:])
		if err != nil {
			return err
		}
		c.unread = c.ahead[:n]
	}
	if !wholeFrame(c.unread) {
		c.raw.SetReadDeadline(time.Now().Add(s.limits.Frame))
		c.readSet = time.Time{}
	}
	size, err := frameSize(c, &c.header, 0, s.limits.FrameSize)
	if err != nil {
		return err
	}
	if size > smallFrame {
		leave, err := s.enterLarge(calls)
		if err != nil {
			return err
		}
		defer leave()
	}
	x := s.codecs.Get().(*codec)
	defer func() {
		if x.keep() {
			s.codecs.Put(x)
		}
	}()
	if err := x.read(c, size); err != nil {
		return err
	}
	c.idle.Store(0)
	s.requests.Add(1)
	out := s.answer(calls, x)
	now := time.Now()
	if now.Sub(c.writeSet) > s.limits.Write/16 {
		c.raw.SetWriteDeadline(now.Add(s.limits.Write))
		c.writeSet = now
	}
	_, err = c.tls.Write(out)
	c.idle.Store(now.UnixNano())
	return err
}

// Read gives what was read ahead first.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.tls.Read(p)
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// refuse tells the client why its frame cannot be read, before the connection
// ends: where the next message would begin is not known.
func (c *conn) refuse(e *frameError) {
	x := newCodec(c.server.limits.FrameSize)
	c.raw.SetWriteDeadline(time.Now().Add(c.server.limits.Write))
	c.tls.Write(x.exception("", 0, protocolError, e.Error()))
}

// enterLarge waits for the allowance to read a large frame.
func (s *Server) enterLarge(ctx context.Context) (leave func(), err error) {
	timer := time.NewTimer(s.limits.Frame)
	defer timer.Stop()
	select {
	case s.large <- struct{}{}:
		return func() { <-s.large }, nil
	case <-timer.C:
		return nil, errors.New("too many large frames at a time")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// addressOf is the client's address without its port.
func addressOf(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	return host
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
