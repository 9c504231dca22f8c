package sshrpc

import (
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// conn is one client's connection: it enforces the deadlines and knows whether
// a call is in progress.
type conn struct {
	net.Conn
	server *server
	source netip.Prefix
	born   time.Time

	mu       sync.Mutex
	decided  bool          // the handshake ended, well or not
	key      ssh.PublicKey // proved by a signature
	calls    int
	sessions int
	draining bool
	ends     []func() // of raw sessions: end their input
}

func newConn(nc net.Conn, s *server, source netip.Prefix) *conn {
	return &conn{Conn: nc, server: s, source: source, born: time.Now()}
}

// SetDeadline does nothing: gliderlabs/ssh clears the deadline on each read and
// write, and the deadlines here must hold.
func (c *conn) SetDeadline(time.Time) error { return nil }

func (c *conn) Read(p []byte) (int, error) {
	if err := c.Conn.SetReadDeadline(c.until(c.server.cfg.Limits.Idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(c.until(c.server.cfg.Limits.FrameTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// until is one absolute deadline during the handshake, then d from now.
func (c *conn) until(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == nil {
		return c.born.Add(c.server.cfg.Limits.Handshake)
	}
	return time.Now().Add(d)
}

// prove ends the handshake, with the proved key or nil; true the first time.
func (c *conn) prove(key ssh.PublicKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.decided
	c.decided = true
	if first {
		c.key = key
	}
	return first
}

// provedKey is the key whose signature was checked.
func (c *conn) provedKey() ssh.PublicKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.key
}

// openSession counts a session channel; false at the limit.
func (c *conn) openSession() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining || c.sessions >= c.server.cfg.Limits.Sessions {
		return false
	}
	c.sessions++
	return true
}

func (c *conn) closeSession() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions--
}

// enter marks a call in progress; false when no new one may start. end, if not
// nil, is called once the service ends.
func (c *conn) enter(end func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return false
	}
	c.calls++
	if end != nil {
		c.ends = append(c.ends, end)
	}
	return true
}

// leave ends a call whose answer was written.
func (c *conn) leave() {
	c.mu.Lock()
	c.calls--
	closing := c.draining && c.calls == 0
	c.mu.Unlock()
	if closing {
		_ = c.Close()
	}
}

// drain closes the connection as soon as no call is in progress.
func (c *conn) drain() {
	c.mu.Lock()
	c.draining = true
	idle := c.calls == 0
	ends := c.ends
	c.mu.Unlock()
	for _, end := range ends {
		end()
	}
	if idle {
		_ = c.Close()
	}
}

func (s *server) logPanic(what string, remote net.Addr, p any) {
	s.log.Error("panic contained", "in", what, "remote", remote.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}
