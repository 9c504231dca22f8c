package network_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

func dflt(t *testing.T, cidr, esn string) network.Network {
	t.Helper()
	n, err := network.DefaultNetwork(cidr, esn)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOpen(t *testing.T) {
	t.Parallel()
	d := dflt(t, "", "esn")
	for _, c := range []struct {
		s    network.Settings
		want string // or the error's text after "!"
	}{
		{network.Settings{}, "127.77.0.0/16"},
		{network.Settings{Kind: "default"}, "127.77.0.0/16"},
		{network.Settings{Kind: "default", Address: "10.0.0.0/8"}, "!takes no address"},
		{network.Settings{Kind: "ipv4static", Address: "192.0.2.77/24", Gateway: "192.0.2.1"}, "192.0.2.0/24"},
		{network.Settings{Kind: "ipv6static", Address: "2001:db8::/64", Gateway: "2001:db8::1"}, "2001:db8::/64"},
		{network.Settings{Kind: "ipv6static", Address: "192.0.2.0/24"}, "!not an address for ipv6static"},
		{network.Settings{Kind: "ipv4static", Address: "2001:db8::/64"}, "!not an address for ipv4static"},
		{network.Settings{Kind: "ipv4static", Address: "192.0.2.0"}, "!CIDR form"},
		{network.Settings{Kind: "ipv4static", Address: ""}, "!CIDR form"},
		{network.Settings{Kind: "ipv4static", Address: "192.0.2.0/32"}, "!no room"},
		{network.Settings{Kind: "ipv4static", Address: "192.0.2.0/31"}, "!no room"},
		{network.Settings{Kind: "ipv6static", Address: "2001:db8::/128"}, "!no room"},
		{network.Settings{Kind: "ipv4static", Address: "224.0.0.0/8"}, "!cannot hold VCMs"},
		{network.Settings{Kind: "ipv4static", Address: "192.0.2.0/24", Gateway: "192.0.3.1"}, "!not an address in"},
		{network.Settings{Kind: "ipv4static", Address: "192.0.2.0/24", Gateway: "x"}, "!not an address in"},
		{network.Settings{Kind: "dhcp"}, "!none of default"},
	} {
		n, err := network.Open(c.s, d)
		if text, bad := strings.CutPrefix(c.want, "!"); bad {
			if !errkind.Is(err, errkind.Invalid) || !strings.Contains(err.Error(), text) {
				t.Errorf("%+v: %v, want %q", c.s, err, text)
			}
			continue
		}
		if err != nil || n.String() != c.want {
			t.Errorf("%+v: %s %v", c.s, n, err)
		}
	}
}

func TestDefaultNetworkIsLoopback(t *testing.T) {
	t.Parallel()
	for cidr, ok := range map[string]bool{"": true, "127.77.5.0/24": true, "127.0.0.0/8": true, "192.0.2.0/24": false, "x": false, "127.77.0.0/32": false} {
		if _, err := network.DefaultNetwork(cidr, "e"); (err == nil) != ok {
			t.Errorf("%q: %v", cidr, err)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	n, err := network.Open(network.Settings{Kind: "ipv4static", Address: "192.0.2.0/24", Gateway: "192.0.2.1"}, dflt(t, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"192.0.2.7":        "",
		"::ffff:192.0.2.7": "",
		"192.0.2.8":        "belongs to another",
		"192.0.2.0":        "reserved",
		"192.0.2.1":        "reserved",
		"192.0.2.255":      "reserved",
		"192.0.3.7":        "outside",
		"2001:db8::1":      "outside",
		"192.0.2":          "not an IP address",
		"fe80::1%eth0":     "not an IP address",
		"":                 "not an IP address",
	} {
		_, err := n.Check(address, []string{"192.0.2.8"})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
}

func TestAllocateSkipsWhatCannotBeUsed(t *testing.T) {
	t.Parallel()
	n, err := network.Open(network.Settings{Kind: "ipv4static", Address: "192.0.2.0/29", Gateway: "192.0.2.1"}, dflt(t, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	var taken []string
	bad := errors.New("port taken")
	for _, want := range []string{"192.0.2.2", "192.0.2.4", "192.0.2.5", "192.0.2.6"} {
		a, err := n.Allocate(taken, func(a netip.Addr) error {
			if a.String() == "192.0.2.3" {
				return bad
			}
			return nil
		})
		if err != nil || a.String() != want {
			t.Fatalf("%s %v, want %s", a, err, want)
		}
		taken = append(taken, a.String())
	}
	if _, err := n.Allocate(taken, func(netip.Addr) error { return bad }); !errkind.Is(err, errkind.Limit) || !errors.Is(err, bad) {
		t.Errorf("full but for one that is unusable: %v", err)
	}
	taken = append(taken, "192.0.2.3")
	if _, err := n.Allocate(taken, func(netip.Addr) error { return nil }); !errkind.Is(err, errkind.Limit) {
		t.Errorf("full: %v", err)
	}
}

func TestAllocateGivesEachAddressOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(24, 30).Draw(t, "bits")
		p := netip.PrefixFrom(netip.MustParseAddr("127.77.9.0"), bits)
		n, err := network.DefaultNetwork(p.String(), rapid.String().Draw(t, "esn"))
		if err != nil {
			t.Fatal(err)
		}
		var taken []string
		seen := map[string]bool{}
		for range 1<<(32-bits) - 2 {
			a, err := n.Allocate(taken, func(netip.Addr) error { return nil })
			if err != nil {
				t.Fatalf("after %d: %v", len(taken), err)
			}
			if _, err := n.Check(a.String(), taken); err != nil {
				t.Fatal(err)
			}
			if seen[a.String()] {
				t.Fatalf("%s twice", a)
			}
			seen[a.String()] = true
			taken = append(taken, a.String())
		}
		if a, err := n.Allocate(taken, func(netip.Addr) error { return nil }); err == nil {
			t.Fatalf("%s beyond the end", a)
		}
	})
}

func TestUnitsOnOneHostSpread(t *testing.T) {
	t.Parallel()
	free := func(netip.Addr) error { return nil }
	a, err := dflt(t, "", "1A2B-3C4D-5E6F").Allocate(nil, free)
	if err != nil {
		t.Fatal(err)
	}
	b, err := dflt(t, "", "1A2B-3C4D-5E70").Allocate(nil, free)
	if err != nil || a == b {
		t.Errorf("both begin at %s (%v)", a, err)
	}
}

func TestReserveIsAllOrNothing(t *testing.T) {
	t.Parallel()
	address, sockets := reserve(t)
	if len(sockets) != len(vcmcontrol.Ports(0)) {
		t.Errorf("%d sockets", len(sockets))
	}
	for i, want := range network.Endpoints(network.Place{Address: address}) {
		l, err := net.FileListener(sockets[i].File)
		if err != nil {
			t.Fatal(err)
		}
		if l.Addr().String() != want.Address || sockets[i].Service != want.Service {
			t.Errorf("%s %s, want %s %s", sockets[i].Service, l.Addr(), want.Service, want.Address)
		}
		l.Close()
	}
	// All but the last are free again: one taken port spoils the address.
	network.CloseAll(sockets[:len(sockets)-1])
	if _, err := network.Reserve(network.Place{Address: address}); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("with one port taken: %v", err)
	}
	network.CloseAll(sockets[len(sockets)-1:])
	forked()
	again, err := network.Reserve(network.Place{Address: address})
	if err != nil {
		t.Errorf("nothing is bound any more: %v", err)
	}
	network.CloseAll(again)
}
