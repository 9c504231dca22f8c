// Package network decides on which address a VCM is reached and binds its
// listeners there. No code of a tenant ever binds a port: the orchestrator does
// and hands the listening sockets over.
//
// The default network is a part of 127.77.0.0/16, addresses of the loopback
// interface: everything on one machine, no privilege, nothing to configure. A
// real subnet (ipv4static, ipv6static) needs its addresses to be local on the
// host. With CAP_NET_ADMIN the orchestrator makes them so one by one (MakeLocal);
// without, somebody gives them to an interface or routes the subnet to the host
// ("ip route add local CIDR dev lo").
package network

import (
	"net/netip"
	"slices"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Kind says where a network came from.
type Kind string

// The kinds of hsmadmin setnetwork.
const (
	Default    Kind = "default"
	IPv4Static Kind = "ipv4static"
	IPv6Static Kind = "ipv6static"
)

// Settings are what the provider chose; they take effect after a reset.
type Settings struct {
	Kind    Kind   `json:"kind"`
	Address string `json:"address,omitempty"` // CIDR
	Gateway string `json:"gateway,omitempty"`
}

// Network is a subnet for VCMs.
type Network struct {
	prefix  netip.Prefix
	gateway netip.Addr // zero for none
	first   uint64     // where allocation begins, as an offset
}

// loopback is what the default network must be part of.
var loopback = netip.MustParsePrefix("127.77.0.0/16")

// DefaultNetwork returns the default network, or the part of it that cidr
// names. Units that share a host spread over it: allocation begins at a place
// that depends on the ESN.
func DefaultNetwork(cidr, esn string) (Network, error) {
	prefix := loopback
	if cidr != "" {
		var err error
		if prefix, err = parsePrefix(cidr); err != nil {
			return Network{}, err
		}
		if !prefix.Addr().IsLoopback() {
			return Network{}, errkind.Errorf(errkind.Invalid,
				"network %s is not a loopback network such as %s; a real subnet is set with 'hsmadmin setnetwork'", cidr, loopback)
		}
	}
	n := Network{prefix: prefix}
	if n.hosts() == 0 {
		return Network{}, errkind.Errorf(errkind.Invalid, "network %s has no room for a VCM", prefix)
	}
	n.first = spread(esn) % n.hosts()
	return n, nil
}

// Open returns the network of s; dflt is what the default kind stands for.
func Open(s Settings, dflt Network) (Network, error) {
	switch s.Kind {
	case "", Default:
		if s.Address != "" || s.Gateway != "" {
			return Network{}, errkind.Errorf(errkind.Invalid, "the default network takes no address and no gateway")
		}
		return dflt, nil
	case IPv4Static, IPv6Static:
	default:
		return Network{}, errkind.Errorf(errkind.Invalid, "network kind %q is none of default, ipv4static, ipv6static", s.Kind)
	}
	prefix, err := parsePrefix(s.Address)
	if err != nil {
		return Network{}, err
	}
	if four := prefix.Addr().Is4(); four != (s.Kind == IPv4Static) {
		return Network{}, errkind.Errorf(errkind.Invalid, "%s is not an address for %s", s.Address, s.Kind)
	}
	n := Network{prefix: prefix}
	if n.hosts() == 0 {
		return Network{}, errkind.Errorf(errkind.Invalid, "network %s has no room for a VCM", prefix)
	}
	if s.Gateway == "" {
		return n, nil
	}
	if n.gateway, err = netip.ParseAddr(s.Gateway); err != nil || !prefix.Contains(n.gateway) {
		return Network{}, errkind.Errorf(errkind.Invalid, "gateway %q is not an address in %s", s.Gateway, prefix)
	}
	return n, nil
}

func parsePrefix(cidr string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(cidr)
	if err != nil {
		return netip.Prefix{}, errkind.Errorf(errkind.Invalid, "network %q is not in CIDR form such as 192.0.2.0/24", cidr)
	}
	if a := p.Addr(); a.IsMulticast() || a.IsUnspecified() || a.Is4In6() {
		return netip.Prefix{}, errkind.Errorf(errkind.Invalid, "network %s cannot hold VCMs", cidr)
	}
	return p.Masked(), nil
}

// String returns the network in CIDR form.
func (n Network) String() string { return n.prefix.String() }

// Gateway returns the gateway's address; it is not valid if there is none.
func (n Network) Gateway() netip.Addr { return n.gateway }

// Check refuses an address that the provider asked for if it is not one of the
// network's host addresses or another VCM has it.
func (n Network) Check(address string, taken []string) (netip.Addr, error) {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, errkind.Errorf(errkind.Invalid, "%q is not an IP address", address)
	}
	a = a.Unmap()
	if !n.prefix.Contains(a) {
		return netip.Addr{}, errkind.Errorf(errkind.Refused, "address %s is outside the VCM network %s; see 'hsmadmin setnetwork'", a, n.prefix)
	}
	if n.reserved(a) {
		return netip.Addr{}, errkind.Errorf(errkind.Refused, "address %s is reserved in %s", a, n.prefix)
	}
	if slices.Contains(taken, a.String()) {
		return netip.Addr{}, errkind.Errorf(errkind.Refused, "address %s belongs to another VCM of this unit", a)
	}
	return a, nil
}

// Allocate returns the first free address on which usable says yes, trying the
// whole network but not more than maxTries addresses that are free and yet
// unusable.
func (n Network) Allocate(taken []string, usable func(netip.Addr) error) (netip.Addr, error) {
	const maxTries = 256
	used := make(map[string]bool, len(taken))
	for _, t := range taken {
		used[t] = true
	}
	var last error
	tries := 0
	hosts := n.hosts()
	for i := uint64(0); i < min(hosts, uint64(len(taken))+maxTries+3) && tries < maxTries; i++ {
		a := n.at(1 + (n.first+i)%hosts)
		if n.reserved(a) || used[a.String()] {
			continue
		}
		if last = usable(a); last == nil {
			return a, nil
		}
		tries++
	}
	if last != nil {
		return netip.Addr{}, errkind.Errorf(errkind.Limit, "no usable address in %s: %w", n.prefix, last)
	}
	return netip.Addr{}, errkind.Errorf(errkind.Limit, "no free address in %s", n.prefix)
}

// hosts is how many addresses follow the network's own, without the IPv4
// broadcast address; huge networks count as 2^32.
func (n Network) hosts() uint64 {
	bits := n.prefix.Addr().BitLen() - n.prefix.Bits()
	if bits >= 32 {
		return 1 << 32
	}
	size := uint64(1) << bits
	if n.prefix.Addr().Is4() {
		return size - min(size, 2)
	}
	return size - 1
}

// at returns the address at an offset from the network's own.
func (n Network) at(offset uint64) netip.Addr {
	b := n.prefix.Addr().AsSlice()
	for i := len(b) - 1; i >= 0 && offset > 0; i-- {
		sum := uint64(b[i]) + offset&0xff
		b[i] = byte(sum)
		offset = offset>>8 + sum>>8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (n Network) reserved(a netip.Addr) bool {
	if a == n.prefix.Addr() || a == n.gateway {
		return true
	}
	return a.Is4() && n.prefix.Bits() < 31 && !n.prefix.Contains(a.Next())
}

// spread turns an ESN into a number, FNV-1a.
func spread(esn string) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range []byte(esn) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
