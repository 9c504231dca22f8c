package mistakes_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
)

// closing is how long a server may take to close a connection after nonsense.
const closing = 10 * time.Second

// wireMistakes are those of programs that speak something else, or not to the end.
func wireMistakes() []mistake {
	const frame = "\x00\x00\x00\x10\x80\x01\x00\x01\x00\x00\x00\x04ping"
	var out []mistake
	for _, m := range []struct{ name, service, send, says string }{
		{"half a frame", "tls", frame[:9], "closed"},
		{"an oversized frame", "tls", "\x7f\xff\xff\xff", "closed"},
		{"a frame without a message", "tls", "\x00\x00\x00\x00", "closed"},
		{"a request for a web page", "tls", "GET / HTTP/1.1\r\n\r\n", "closed"},
		{"a frame of nonsense", "tls", "\x00\x00\x00\x08nonsense", "closed"},
		{"no TLS", "tokenapi", frame, "closed"},
		{"nonsense", "sshadmin", "\x00\x01\x02\x03\r\n\r\n", "closed"},
		{"nonsense", "prismtoken", strings.Repeat("x", 64<<10), "closed"},
		{"nonsense after the version", "monitor", "SSH-2.0-x\r\n\xff\xff\xff\xff", "closed"},
		{"half a frame", "smapi", "\x00\x10\x01\x02", "closed"},
		{"an oversized frame", "smapi", "\xff\xff\x01\x02", "closed"},
		{"a wrong check sum", "smapi", "\x00\x10\xed\xf1\x2b\x00\xfe\xedSM?DI0000\r", "GL!ER20"},
	} {
		out = append(out, mistake{fmt.Sprintf("send %s to %s", m.name, m.service), func(w *world) answer {
			return w.send(m.service, m.send)
		}, hungUp, []string{m.says}})
	}
	return append(out,
		mistake{"leave forty connections with half a frame", func(w *world) answer {
			for range 20 {
				for _, c := range []struct{ service, send string }{{"tls", frame[:9]}, {"prismtoken", "SSH-2.0-"}} {
					conn := w.dial(c.service)
					if _, err := io.WriteString(conn, c.send); err != nil {
						w.t.Fatal(err)
					}
					defer func() { _ = conn.Close() }()
				}
			}
			return w.run(rig.Vending, "vend", "ping", "--address", w.v.Address, "--ca", w.v.CA) // others are served
		}, done, []string{"Hello, world!"}},
		mistake{"use an SSH service with a stranger's key", func(w *world) answer {
			stranger, err := rig.NewKey()
			if err != nil {
				w.t.Fatal(err)
			}
			return w.session("monitor", stranger)
		}, refused, []string{"unable to authenticate"}},
		mistake{"use an SSH service with another service's key", func(w *world) answer { return w.session("monitor", w.updater) },
			refused, []string{"unable to authenticate"}},
	)
}

// send writes to a service of the VCM, has no more to say, and returns what came
// until the connection was closed.
func (w *world) send(service, what string) answer {
	w.t.Helper()
	conn := w.dial(service)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(closing))
	// A server may close before it has read everything: only its answer counts.
	_, _ = io.WriteString(conn, what)
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	got, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return answer{done, fmt.Sprintf("still open after %s, it said %q", closing, got)}
	}
	return answer{hungUp, fmt.Sprintf("%q, closed", got)}
}

// dial connects to a service of the VCM; "tls" is the token service inside TLS.
func (w *world) dial(service string) net.Conn {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), closing)
	defer cancel()
	var conn net.Conn
	var err error
	if service == "tls" {
		var trust *vending.Trust
		if trust, err = vending.LoadTrust(w.v.CA, time.Now); err != nil {
			w.t.Fatal(err)
		}
		conn, err = (&tls.Dialer{Config: trust.TLS(strings.TrimSuffix(w.v.Address, ":9443"))}).DialContext(ctx, "tcp", w.v.Address)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", w.endpoint(service))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// endpoint is where a service of the VCM listens.
func (w *world) endpoint(service string) string {
	w.t.Helper()
	_, rest, found := strings.Cut(w.read(w.v.File), "\nEndpoint."+service+": ")
	address, _, _ := strings.Cut(rest, "\n")
	if !found {
		w.t.Fatalf("the VCM has no service %s", service)
	}
	return address
}

// session opens a session of a platform service.
func (w *world) session(service string, key ssh.Signer) answer {
	w.t.Helper()
	places, err := w.r.Endpoints()
	if err != nil {
		w.t.Fatal(err)
	}
	unit, err := w.r.UnitKey()
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := rig.DialService(w.t.Context(), places[service], service, key, unit)
	if err == nil {
		s.Close()
		return answer{done, "a session"}
	}
	return answer{refused, err.Error()}
}
