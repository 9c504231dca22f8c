package hosting_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// free fails unless somebody else can have the VCM's ports, and taken unless he
// cannot.
func free(t *testing.T, address string) {
	t.Helper()
	// Processes that are being started have the files of whoever starts them until
	// their exec.
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		sockets, err := network.Reserve(network.Place{Address: address})
		if err == nil {
			network.CloseAll(sockets)
			return
		}
		if time.Now().After(end) {
			t.Errorf("%s is not free: %v", address, err)
			return
		}
	}
}

func taken(t *testing.T, when, address string) {
	t.Helper()
	sockets, err := network.Reserve(network.Place{Address: address})
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("%s: another one has got %s: %v", when, address, err)
		network.CloseAll(sockets)
	}
}

// dial says whether clients of a VCM can connect.
func dial(address string) error {
	c, err := net.DialTimeout("tcp", network.Endpoints(network.Place{Address: address})[0].Address, 5*time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

// From its creation to its deletion a VCM has its address, through stops, starts
// and crashes of the orchestrator; clients are refused unless it runs.
func TestAddressIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.open(false)
	rec, err := h.Create(t.Context(), "by", r.request(request.Request{Kind: request.Create}), admit.Choices{})
	if err != nil {
		t.Fatal(err)
	}
	a := rec.Properties.IPAddress
	closed := func(when string) {
		t.Helper()
		taken(t, when, a)
		if err := dial(a); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v", when, err)
		}
	}
	closed("created")
	for range 2 {
		if _, err := h.Start(t.Context(), "by", rec.UUID, nil, wait); err != nil {
			t.Fatal(err)
		}
		taken(t, "running", a)
		if err := dial(a); err != nil {
			t.Errorf("running: %v", err)
		}
		if _, err := h.Stop(t.Context(), "by", rec.UUID, true, wait); err != nil {
			t.Fatal(err)
		}
		closed("stopped")
		hosting.Kill(h)
		free(t, a)
		h = r.open(false)
		closed("after a crash")
	}
	// It moves, and leaves the former address to others.
	n, err := network.Open(network.Settings{}, r.cfg.Network)
	if err != nil {
		t.Fatal(err)
	}
	next, err := n.Allocate([]string{a}, func(a netip.Addr) error {
		sockets, err := network.Reserve(network.Place{Address: a.String()})
		network.CloseAll(sockets)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b := next.String()
	file := r.request(request.Request{Kind: request.SetProperties, VCM: rec.UUID, Properties: request.Properties{IPAddress: &b}})
	if _, err := h.SetProperty(t.Context(), "by", rec.UUID, file, "ip_address", b); err != nil {
		t.Fatal(err)
	}
	free(t, a)
	a = b
	closed("moved")
	if err := h.Delete(t.Context(), "by", rec.UUID, true); err != nil {
		t.Fatal(err)
	}
	free(t, a)
}

// A VCM's Conductor moves to another port and keeps the rest, unless somebody else
// has the port.
func TestConductorPortMoves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	h := r.open(false)
	wish := uint16(5105)
	rec, err := h.Create(t.Context(), "by", r.request(request.Request{Kind: request.Create, Properties: request.Properties{ConductorPort: &wish}}), admit.Choices{})
	if err != nil {
		t.Fatal(err)
	}
	set := func(port uint16) error {
		file := r.request(request.Request{Kind: request.SetProperties, VCM: rec.UUID, Properties: request.Properties{ConductorPort: &port}})
		_, err := h.SetProperty(t.Context(), "by", rec.UUID, file, "conductor_port", strconv.Itoa(int(port)))
		return err
	}
	at := func(port uint16) string {
		return netip.AddrPortFrom(netip.MustParseAddr(rec.Properties.IPAddress), port).String()
	}
	held := func(port uint16) {
		t.Helper()
		for _, p := range vcmcontrol.Ports(port) {
			if l, err := net.Listen("tcp", at(p.Port)); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("%s on %d: %v", p.Service, p.Port, err)
				if err == nil {
					l.Close()
				}
			}
		}
	}
	held(5105)
	l, err := net.Listen("tcp", at(5106))
	if err != nil {
		t.Fatal(err)
	}
	if err := set(5106); !errkind.Is(err, errkind.Refused) {
		t.Errorf("another one's port: %v", err)
	}
	l.Close()
	held(5105)
	for range 2 {
		if err := set(5106); err != nil {
			t.Fatal(err)
		}
		held(5106)
	}
	if l, err := net.Listen("tcp", at(5105)); err != nil {
		t.Errorf("the former port: %v", err)
	} else {
		l.Close()
	}
	if _, err := h.Start(t.Context(), "by", rec.UUID, nil, wait); err != nil {
		t.Fatal(err)
	}
	if c, err := net.DialTimeout("tcp", at(5106), 5*time.Second); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if err := set(5107); !errkind.Is(err, errkind.Mode) {
		t.Errorf("while it runs: %v", err)
	}
	hosting.Kill(h)
	r.open(false)
	anyFree := func() bool {
		return slices.ContainsFunc(vcmcontrol.Ports(5106), func(p vcmcontrol.Port) bool {
			l, err := net.Listen("tcp", at(p.Port))
			if err == nil {
				l.Close()
			}
			return err == nil
		})
	}
	// What its former process had may be had a moment later: it is tried each second.
	for end := time.Now().Add(wait); anyFree() && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	held(5106)
}

// Two units on one host and one network never give out the same address.
func TestUnitsShareANetwork(t *testing.T) {
	t.Parallel()
	first, second := newRig(t), newRig(t)
	n, err := network.DefaultNetwork(fmt.Sprintf("127.79.%d.%d/30", rand.IntN(256), 4*rand.IntN(64)), "")
	if err != nil {
		t.Fatal(err)
	}
	first.cfg.Network, second.cfg.Network = n, n
	var got []string
	for _, r := range []*rig{first, second} {
		h := r.open(false)
		rec, err := h.Create(t.Context(), "by", r.request(request.Request{Kind: request.Create}), admit.Choices{})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, rec.Properties.IPAddress)
	}
	distinct(t, "address", got)
	_, err = second.host.Create(t.Context(), "by", second.request(request.Request{Kind: request.Create}), admit.Choices{})
	if !errkind.Is(err, errkind.Limit) {
		t.Errorf("a third VCM on a network of two addresses: %v", err)
	}
	_, err = second.host.Create(t.Context(), "by", second.request(request.Request{Kind: request.Create}), admit.Choices{IPAddress: got[0]})
	if !errkind.Is(err, errkind.Refused) {
		t.Errorf("the address of the other unit's VCM: %v", err)
	}
}

// While starts fail, and after they were given up, clients are refused instead of
// being left to wait.
func TestFailingStartsRefuseClients(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.cfg.Launcher = failing(t)
	r.cfg.Policy.First, r.cfg.Policy.Last, r.cfg.Policy.Attempts = time.Second, time.Second, 3
	h := r.open(false)
	rec, err := h.Create(t.Context(), "by", r.request(request.Request{Kind: request.Create}), admit.Choices{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := h.Start(t.Context(), "by", rec.UUID, nil, wait); ended <- err }()
	refused := 0
	for {
		select {
		case err := <-ended:
			if !errkind.Is(err, errkind.Unavailable) {
				t.Errorf("%v", err)
			}
			if got, err := h.Show(rec.UUID); err != nil || got.State != lifecycle.Failed {
				t.Errorf("%+v %v", got, err)
			}
			if refused < 5 {
				t.Errorf("%d clients were refused between the attempts", refused)
			}
			if err := dial(rec.Properties.IPAddress); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("given up: %v", err)
			}
			taken(t, "given up", rec.Properties.IPAddress)
			return
		case <-time.After(50 * time.Millisecond):
			if starting := len(h.List(true)) == 1; starting && errors.Is(dial(rec.Properties.IPAddress), unix.ECONNREFUSED) {
				refused++
			}
		}
	}
}
