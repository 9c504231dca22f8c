package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/orchestrator/platform"
	"github.com/tesserae-hsm/tesserae/tenant/request"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

// netHost is a host as far as the network is concerned: a network namespace. The
// zero value is the host of the test.
type netHost struct{ ns *os.File }

// do does fn there: what fn starts and connects, as far as it does so itself.
func (h netHost) do(t testing.TB, fn func()) {
	t.Helper()
	if h.ns == nil {
		fn()
		return
	}
	err := elsewhere(func() error {
		if err := unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		fn()
		return nil
	})
	if err != nil {
		t.Fatalf("enter a network namespace: %v", err)
	}
}

// elsewhere does fn on a thread whose network namespace fn may change. The thread
// goes home then: its end would be that of every process that another test has
// started from it to end with its parent.
func elsewhere(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		err = fn()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		} else {
			err = errors.Join(err, back)
		}
		done <- errors.Join(err, home.Close())
	}()
	return <-done
}

func newNetHost(t *testing.T) netHost {
	t.Helper()
	var h netHost
	err := elsewhere(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			h.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { h.ns.Close() })
	h.ip(t, "link set lo up")
	return h
}

// path names the namespace to other programs.
func (h netHost) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.ns.Fd()) }

// ip runs iproute2's command there.
func (h netHost) ip(t *testing.T, args string) {
	t.Helper()
	var out []byte
	var err error
	h.do(t, func() { out, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput() })
	if err != nil {
		t.Fatalf("ip %s: %v; 'make packages' installs iproute2\n%s", args, err, out)
	}
}

func (h netHost) dial(t *testing.T, address string) (c net.Conn, err error) {
	t.Helper()
	h.do(t, func() { c, err = net.DialTimeout("tcp", address, 3*time.Second) })
	return c, err
}

// TestHostsOfTheirOwn has the platform on one host and a tenant on another, with a
// wire between them, and VCMs on subnets of both kinds that are local in each way.
func TestHostsOfTheirOwn(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("REDUCED: without root there are no hosts of their own; only TestRealSubnets of orchestrator/network covers real subnets")
	}
	provider, tenants := newNetHost(t), newNetHost(t)
	provider.ip(t, "link add wire type veth peer name wire netns "+tenants.path())
	for h, n := range map[netHost]string{provider: "1", tenants: "2"} {
		h.ip(t, "address add 198.51.100."+n+"/24 dev wire")
		h.ip(t, "address add 2001:db8:1::"+n+"/64 dev wire nodad")
		h.ip(t, "link set wire up")
	}
	// Subnets that are on no wire reach the platform because it is their router.
	tenants.ip(t, "route add 203.0.113.0/24 via 198.51.100.1")
	tenants.ip(t, "route add 2001:db8:2::/64 via 2001:db8:1::1")
	w := makeWorld(t, false, provider)
	w.licence("max-active-vcms", "2")
	for _, form := range []struct {
		name, kind, subnet, gateway string
		addresses                   [2]string // empty: to be allocated
		given                       bool      // to the interface, beforehand
	}{
		{"IPv4, routed", "ipv4static", "203.0.113.0/24", "203.0.113.1", [2]string{}, false},
		{"IPv4, on the wire", "ipv4static", "198.51.100.0/24", "198.51.100.254", [2]string{"198.51.100.40", "198.51.100.41"}, false},
		{"IPv4, addresses of the interface", "ipv4static", "198.51.100.0/25", "", [2]string{"198.51.100.50", "198.51.100.51"}, true},
		{"IPv6, routed", "ipv6static", "2001:db8:2::/64", "2001:db8:2::1", [2]string{}, false},
		{"IPv6, on the wire", "ipv6static", "2001:db8:1::/64", "2001:db8:1::fe", [2]string{"2001:db8:1::40", "2001:db8:1::41"}, false},
		{"IPv6, addresses of the interface", "ipv6static", "2001:db8:1::/72", "", [2]string{"2001:db8:1::50", "2001:db8:1::51"}, true},
	} {
		ok := t.Run(form.name, func(t *testing.T) {
			w.t = t
			w.moveTo(form.kind, form.subnet, form.gateway)
			var vcms [2]*hosted
			for i, a := range form.addresses {
				if form.given {
					provider.ip(t, "address add "+a+"/"+form.subnet[strings.Index(form.subnet, "/")+1:]+" dev wire nodad")
				}
				vcms[i] = w.hosted(a)
			}
			runs, rests := vcms[0], vcms[1]
			o := w.orchestrator()
			_, err := o.Create(t.Context(), runs.sign(t, request.Request{Kind: request.Create}), &orchestrator.CreateChoices{IpAddress: &rests.address})
			wantKind(t, err, errkind.Refused, "belongs to another VCM")
			w.start(o, runs.id)
			w.start(o, rests.id)
			reached(t, tenants, w, runs)
			reached(t, tenants, w, rests)
			if _, err := o.Stop(t.Context(), rests.id, true, 30); err != nil {
				t.Fatal(err)
			}
			refused(t, tenants, rests)
			reached(t, tenants, w, runs)
			if _, err := o.Stop(t.Context(), runs.id, true, 30); err != nil {
				t.Fatal(err)
			}
			refused(t, tenants, runs)
			for _, v := range vcms {
				if err := o.Remove(t.Context(), v.id, true); err != nil {
					t.Fatal(err)
				}
				if form.given {
					continue
				}
				provider.do(t, func() {
					if l, err := net.Listen("tcp", net.JoinHostPort(v.address, "9443")); err == nil {
						l.Close()
						t.Errorf("%s is still an address of the host", v.address)
					}
				})
			}
		})
		w.t = t
		if !ok {
			return // the VCMs that are left stand in the way of the next subnet
		}
	}
	// The platform's own services are on the loopback interface of its host.
	for _, s := range w.unit().Services {
		if c, err := tenants.dial(t, s.Address); err == nil {
			c.Close()
			t.Errorf("the platform's %s is open to tenants' hosts", s.Name)
		}
	}
}

// hosted is a VCM and what its tenant knows of it.
type hosted struct {
	tenant
	id, address string
	file        *vcmfile.File
}

func (w *world) hosted(address string) *hosted {
	w.t.Helper()
	n := newTenant(w.t)
	choices := &orchestrator.CreateChoices{Name: "hosted"}
	if address != "" {
		choices.IpAddress = &address
	}
	c, err := w.orchestrator().Create(w.t.Context(), n.sign(w.t, request.Request{Kind: request.Create}), choices)
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := vcmfile.Parse(c.VcmFile)
	if err != nil {
		w.t.Fatal(err)
	}
	return &hosted{tenant: n, id: c.Vcm.Uuid, address: c.Vcm.Properties.IpAddress, file: f}
}

// moveTo gives the VCMs another network, by a reset.
func (w *world) moveTo(kind, subnet, gateway string) {
	w.t.Helper()
	s := w.setup()
	if err := s.SetNetwork(w.t.Context(), &setup.Network{Kind: kind, Address: subnet, Gateway: gateway}); err != nil {
		w.t.Fatal(err)
	}
	if before, err := s.Info(w.t.Context()); err != nil || before.Network == subnet {
		w.t.Fatalf("before the reset: %+v %v", before, err)
	}
	if err := s.Reset(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, "the network "+subnet, func() bool {
		c, err := w.dial(platform.ServiceSetup, w.keys[platform.ServiceSetup])
		if err != nil {
			return false
		}
		defer c.Close()
		i, err := setup.NewSetupClient(c.Thrift()).Info(w.t.Context())
		return err == nil && i.Network == subnet
	})
	_, err := w.orchestrator().Create(w.t.Context(), newTenant(w.t).sign(w.t, request.Request{Kind: request.Create}),
		&orchestrator.CreateChoices{IpAddress: ptr("192.0.2.77")})
	wantKind(w.t, err, errkind.Refused, "outside the VCM network "+subnet)
}

// reached connects from the tenant's host by TLS and by SSH, and checks who
// answers: the certificate for the address, and the host certificate.
func reached(t *testing.T, from netHost, w *world, v *hosted) {
	t.Helper()
	c, err := from.dial(t, net.JoinHostPort(v.address, "9443"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // it is self-signed
	if err := secure.Handshake(); err != nil {
		t.Fatalf("TLS with %s: %v", v.address, err)
	}
	if err := secure.ConnectionState().PeerCertificates[0].VerifyHostname(v.address); err != nil {
		t.Error(err)
	}
	address, err := v.file.Endpoint(platform.ServiceSSHAdmin)
	if err != nil {
		t.Fatal(err)
	}
	unitKey, err := v.file.Key()
	if err != nil {
		t.Fatal(err)
	}
	var admin *sshrpc.Client
	from.do(t, func() {
		admin, err = sshrpc.Dial(t.Context(), sshrpc.ClientConfig{
			Service: platform.ServiceSSHAdmin, Address: address, Signer: v.ssh, UnitKey: unitKey,
			Principal: hsmapi.Principal(w.esn, v.id, platform.ServiceSSHAdmin), Timeout: patience,
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := sshadmin.NewSshAdminClient(admin.Thrift()).ShowKeys(t.Context()); err != nil {
		t.Error(err)
	}
}

// refused has every port of a VCM that does not run say so at once.
func refused(t *testing.T, from netHost, v *hosted) {
	t.Helper()
	for _, e := range v.file.Endpoints {
		c, err := from.dial(t, e.Address)
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s at %s: %v", e.Service, e.Address, err)
		}
		if err == nil {
			c.Close()
		}
	}
}
