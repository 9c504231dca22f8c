package sshrpc_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
)

// confuse connects as an attacker who knows victim's public key and holds mine:
// he asks whether victim's key would do, is told yes, and proves mine.
func confuse(t *testing.T, address string, victim ssh.PublicKey, mine ssh.Signer) (*ssh.Client, error) {
	t.Helper()
	return ssh.Dial("tcp", address, &ssh.ClientConfig{
		User:            "x",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(asker{&question{PublicKey: victim}}, mine)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
}

// question is the public key of somebody else. Once it has been sent it no
// longer recognises the server's yes, so that the client library goes on to the
// next key instead of asking for a signature.
type question struct {
	ssh.PublicKey
	asked bool
}

func (q *question) Marshal() []byte {
	if q.asked {
		return nil
	}
	q.asked = true
	return q.PublicKey.Marshal()
}

// asker offers a question and can sign nothing.
type asker struct{ key *question }

func (a asker) PublicKey() ssh.PublicKey { return a.key }
func (a asker) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	return nil, errors.New("the private key is not known")
}

// The positive control: a server with both keys that takes the role from what
// its callback saw. If the attack stops working here, the test below proves nothing.
func TestRoleConfusionWorksOnACarelessServer(t *testing.T) {
	t.Parallel()
	admin, monitor := sshrpctest.Key(t), sshrpctest.Key(t)
	type role struct{}
	var mu sync.Mutex
	var taken, proved string
	srv := &gssh.Server{
		HostSigners: []gssh.Signer{sshrpctest.Key(t)},
		PublicKeyHandler: func(ctx gssh.Context, key gssh.PublicKey) bool {
			switch {
			case bytes.Equal(key.Marshal(), admin.PublicKey().Marshal()):
				ctx.SetValue(role{}, "admin")
				return true
			case bytes.Equal(key.Marshal(), monitor.PublicKey().Marshal()):
				if ctx.Value(role{}) == nil {
					ctx.SetValue(role{}, "monitor")
				}
				return true
			}
			return false
		},
		SubsystemHandlers: map[string]gssh.SubsystemHandler{"roles": func(s gssh.Session) {
			mu.Lock()
			defer mu.Unlock()
			taken, _ = s.Context().Value(role{}).(string)
			proved = "monitor"
			if bytes.Equal(s.PublicKey().Marshal(), admin.PublicKey().Marshal()) {
				proved = "admin"
			}
		}},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	defer func() { _ = srv.Close(); <-served }()
	client, err := confuse(t, l.Addr().String(), admin.PublicKey(), monitor)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.RequestSubsystem("roles"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return taken != "" })
	mu.Lock()
	defer mu.Unlock()
	if taken != "admin" {
		t.Fatalf("the attack does not work any more (role %q): find another positive control", taken)
	}
	if proved != "monitor" {
		t.Errorf("the session's key is %s", proved)
	}
}

// One service, one key: knowing the public key of a service gives nothing.
func TestRoleConfusionGivesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, handler{show: oneKey}, nil)
	if c, err := confuse(t, w.address, w.client.PublicKey(), sshrpctest.Key(t)); err == nil {
		_ = c.Close()
		t.Error("a client without the service's private key was let in")
	}
	// Even when the attacker's own key is let in by a change of keys meanwhile,
	// the session is judged by the key that was proved.
	mine := sshrpctest.Key(t)
	calls := 0
	var mu sync.Mutex
	w2 := newWorld(t, handler{show: oneKey}, func(cfg *sshrpc.ServerConfig) {
		cfg.Authorised = func() (ssh.PublicKey, bool) {
			mu.Lock()
			defer mu.Unlock()
			calls++
			if calls == 2 { // asked about the second key
				return mine.PublicKey(), true
			}
			return w.client.PublicKey(), true
		}
	})
	c, err := confuse(t, w2.address, w.client.PublicKey(), mine)
	if err != nil {
		t.Fatalf("the second key should pass authentication in this test: %v", err)
	}
	defer c.Close()
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.RequestSubsystem(service); err != nil {
		return // refused before it started: as good
	}
	call := []byte("\x00\x00\x00\x15\x80\x01\x00\x01\x00\x00\x00\x08showKeys\x00\x00\x00\x01\x00")
	_, _ = in.Write(call)
	if n, _ := out.Read(make([]byte, 64)); n > 0 {
		t.Error("a session whose proved key is not authorised was answered")
	}
}
