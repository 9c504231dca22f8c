package sshrpc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"
)

type connKey struct{}

// newSSH is the SSH side of the service. The map of what it handles is the list
// of what it allows: one channel type, one subsystem, no global request.
func (s *server) newSSH() *gssh.Server {
	return &gssh.Server{
		Version:     "Tesserae",
		HostSigners: []gssh.Signer{s.cfg.HostKey},
		Handler:     func(gssh.Session) {},
		ConnCallback: func(ctx gssh.Context, nc net.Conn) net.Conn {
			ctx.SetValue(connKey{}, nc)
			return nc
		},
		PublicKeyHandler: func(_ gssh.Context, key gssh.PublicKey) bool { return s.cfg.authorised(key) },
		ServerConfigCallback: func(ctx gssh.Context) *ssh.ServerConfig {
			return s.sshConfig(ctx.Value(connKey{}).(*conn))
		},
		ConnectionFailedCallback: func(nc net.Conn, err error) {
			s.log.Info("connection failed", "remote", nc.RemoteAddr().String(), "reason", err.Error())
		},
		ChannelHandlers: map[string]gssh.ChannelHandler{
			"session": s.openSession,
			"default": func(_ *gssh.Server, _ *ssh.ServerConn, ch ssh.NewChannel, _ gssh.Context) {
				_ = ch.Reject(ssh.Prohibited, fmt.Sprintf("service %s has no %s, only its subsystem", s.cfg.Service, ch.ChannelType()))
			},
		},
		RequestHandlers:   map[string]gssh.RequestHandler{},
		SubsystemHandlers: map[string]gssh.SubsystemHandler{s.cfg.Service: s.serveSession},
	}
}

func (s *server) sshConfig(c *conn) *ssh.ServerConfig {
	return &ssh.ServerConfig{
		MaxAuthTries: 6,
		AuthLogCallback: func(meta ssh.ConnMetadata, method string, err error) {
			if err != nil && method != "none" {
				s.log.Warn("client refused", "remote", meta.RemoteAddr().String(), "method", method)
			}
		},
		VerifiedPublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey, p *ssh.Permissions, _ string) (*ssh.Permissions, error) {
			s.proved(c, key)
			return p, nil
		},
	}
}

func (s *server) openSession(srv *gssh.Server, sc *ssh.ServerConn, ch ssh.NewChannel, ctx gssh.Context) {
	if !s.begin() {
		_ = ch.Reject(ssh.Prohibited, "the service is ending")
		return
	}
	defer s.running.Done()
	c := ctx.Value(connKey{}).(*conn)
	if !c.openSession() {
		_ = ch.Reject(ssh.ResourceShortage, fmt.Sprintf("service %s: at most %d sessions a connection", s.cfg.Service, s.cfg.Limits.Sessions))
		return
	}
	defer c.closeSession()
	gssh.DefaultSessionHandler(srv, sc, subsystemOnly{ch, s.cfg.Service}, ctx)
}

// subsystemOnly lets nothing but the service's subsystem through to the session:
// gliderlabs/ssh would accept environment, terminal and agent requests.
type subsystemOnly struct {
	ssh.NewChannel
	service string
}

func (n subsystemOnly) Accept() (ssh.Channel, <-chan *ssh.Request, error) {
	ch, requests, err := n.NewChannel.Accept()
	if err != nil {
		return nil, nil, err
	}
	passed := make(chan *ssh.Request)
	go func() {
		defer close(passed) // ends the session, which owns this goroutine
		for req := range requests {
			switch {
			case req.Type == "subsystem" && bytes.Equal(req.Payload, ssh.Marshal(struct{ Name string }{n.service})):
				passed <- req
			case req.Type == "shell" || req.Type == "exec":
				n.explain(ch, req)
			default:
				_ = req.Reply(false, nil)
			}
		}
	}()
	return ch, passed, nil
}

// explain answers a request to run something. OpenSSH's client shows a text only
// if the request itself was not refused, so it is granted and ends at once.
func (n subsystemOnly) explain(ch ssh.Channel, req *ssh.Request) {
	_ = req.Reply(true, nil)
	_, _ = fmt.Fprintf(ch.Stderr(), "tesserae: no %s here; this port has only the subsystem %q\r\n", req.Type, n.service)
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{3}))
	_ = ch.Close()
}

// serveSession authorises the session from the key that was proved and serves it.
func (s *server) serveSession(sess gssh.Session) {
	if !s.begin() {
		return
	}
	defer s.running.Done()
	defer func() {
		if p := recover(); p != nil {
			s.logPanic("session", sess.RemoteAddr(), p)
		}
	}()
	c := sess.Context().Value(connKey{}).(*conn)
	key := sess.PublicKey()
	// The proved key is the last word. sess.PublicKey() is the same key unless
	// the SSH library let a merely offered one through.
	if proved := c.provedKey(); key == nil || proved == nil || !bytes.Equal(proved.Marshal(), key.Marshal()) || !s.cfg.authorised(proved) {
		s.log.Warn("session refused: its key is not authorised", "remote", sess.RemoteAddr().String())
		_, _ = io.WriteString(sess.Stderr(), "tesserae: this key may not use this service\r\n")
		_ = sess.Exit(1)
		return
	}
	who := Session{Service: s.cfg.Service, Key: key, Remote: sess.RemoteAddr()}
	log := s.log.With("remote", who.Remote.String(), "key", ssh.FingerprintSHA256(key))
	log.Debug("session started")
	// A call ends with its connection, or when draining took too long.
	ctx, cancel := context.WithCancel(s.calls)
	defer cancel()
	stop := context.AfterFunc(sess.Context(), cancel)
	defer stop()
	var err error
	if s.cfg.Raw != nil {
		err = s.serveRaw(ctx, c, who, sess)
	} else {
		err = s.serveRPC(ctx, c, who, sess)
	}
	if err != nil {
		log.Info("session ended", "reason", err.Error())
		return
	}
	log.Debug("session ended")
}
