package network_test

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// forked waits until every process that other tests are starting has let go of the
// files of this one, which it has between its fork and its exec.
func forked() {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
}

// reserve takes an address of the loopback network that no other test has, of
// another run neither.
func reserve(t *testing.T) (string, []network.Socket) {
	t.Helper()
	n := dflt(t, "127.78.0.0/16", rand.Text())
	var sockets []network.Socket
	a, err := n.Allocate(nil, func(a netip.Addr) (err error) {
		sockets, err = network.Reserve(network.Place{Address: a.String()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { network.CloseAll(sockets) })
	return a.String(), sockets
}

// A stopped VCM's ports refuse clients, and nobody else gets them, whether or not
// he shares addresses and whatever lingers of connections.
func TestReservedPorts(t *testing.T) {
	t.Parallel()
	address, sockets := reserve(t)
	closed := func(when string) {
		t.Helper()
		if _, err := network.Reserve(network.Place{Address: address}); !errkind.Is(err, errkind.Unavailable) || !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s: reserved twice: %v", when, err)
		}
		for _, s := range sockets {
			if l, err := net.Listen("tcp", s.Address); !errors.Is(err, unix.EADDRINUSE) { // with SO_REUSEADDR
				t.Errorf("%s: another one listens on %s: %v", when, s.Service, err)
				if err == nil {
					l.Close()
				}
			}
			if c, err := net.DialTimeout("tcp", s.Address, time.Second); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s: %s: %v", when, s.Service, err)
				if err == nil {
					c.Close()
				}
			}
		}
	}
	closed("reserved")
	for range 2 {
		for range 2 { // the second changes nothing
			if err := network.Listen(sockets); err != nil {
				t.Fatal(err)
			}
		}
		for _, s := range sockets {
			serveOnce(t, s)
		}
		waiting, err := net.Dial("tcp", sockets[0].Address)
		if err != nil {
			t.Fatal(err)
		}
		defer waiting.Close()
		for range 2 {
			if err := network.Refuse(sockets); err != nil {
				t.Fatal(err)
			}
		}
		_ = waiting.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, io.EOF) {
			t.Errorf("a client that nobody had accepted: %v", err)
		}
		closed("refusing")
	}
	network.CloseAll(sockets)
	forked()
	again, err := network.Reserve(network.Place{Address: address})
	if err != nil {
		t.Fatalf("given up: %v", err)
	}
	network.CloseAll(again)
}

// A place that differs from another in one port takes the others over.
func TestReserveTakesOver(t *testing.T) {
	t.Parallel()
	address, before := reserve(t)
	other := network.Place{Address: address, ConductorPort: 5101}
	taker, err := net.Listen("tcp", network.Endpoints(other)[1].Address)
	if err != nil {
		t.Fatal(err)
	}
	defer taker.Close()
	if _, err := network.Reserve(other, before...); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("the port is another's: %v", err)
	}
	for _, s := range before { // it kept what it had
		if err := network.Listen([]network.Socket{s}); err != nil {
			t.Fatal(err)
		}
		if err := network.Refuse([]network.Socket{s}); err != nil {
			t.Fatal(err)
		}
	}
	taker.Close()
	forked()
	after, err := network.Reserve(other, before...)
	if err != nil {
		t.Fatal(err)
	}
	defer network.CloseAll(after)
	for i, want := range network.Endpoints(other) {
		if after[i].Address != want.Address || after[i].Service != want.Service || (after[i] == before[i]) != (i != 1) {
			t.Errorf("%+v, before %+v", after[i], before[i])
		}
	}
	network.CloseAll(before, after...)
	forked()
	free, err := net.Listen("tcp", before[1].Address)
	if err != nil {
		t.Errorf("the former port: %v", err)
	} else {
		free.Close()
	}
	if _, err := net.Listen("tcp", after[0].Address); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a port that stayed: %v", err)
	}
}

// serveOnce accepts one client, as a VCM's process does, and ends the connection
// first: it lingers on this side.
func serveOnce(t *testing.T, s network.Socket) {
	t.Helper()
	fd, err := unix.FcntlInt(s.File.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), s.Service)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", s.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	here, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	here.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("%s: %v", s.Service, err)
	}
}
