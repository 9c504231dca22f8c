package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// Place is where a VCM's services are.
type Place struct {
	Address       string
	ConductorPort uint16 // of the SM API; 0: its default
}

// Socket is a bound port of a VCM.
type Socket struct {
	Service string
	Address string
	File    *os.File
}

// Endpoints returns what the sockets of a VCM at p are, without binding them.
func Endpoints(p Place) []Socket {
	var out []Socket
	for _, at := range vcmcontrol.Ports(p.ConductorPort) {
		out = append(out, Socket{Service: at.Service, Address: net.JoinHostPort(p.Address, strconv.Itoa(int(at.Port)))})
	}
	return out
}

// Reserve binds every port of a VCM at p, all or none; those that have holds it
// takes from there. Nobody listens yet: clients are refused, and no other process
// can bind the ports. An address that is not local to the host is made so, where
// the process may.
func Reserve(p Place, have ...Socket) ([]Socket, error) {
	a, err := netip.ParseAddr(p.Address)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "%q is not an IP address", p.Address)
	}
	want := Endpoints(p)
	sockets, err := bindAll(want, have, false)
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		return sockets, err
	}
	if routeErr := MakeLocal(a); routeErr != nil {
		return nil, errkind.Errorf(errkind.Unavailable,
			"%w; %s is no address of this host: give it to an interface, or run 'ip route add local %s dev lo' with privilege (%w)", err, a, a, routeErr)
	}
	if sockets, err = bindAll(want, have, true); err != nil {
		return nil, errors.Join(err, Release(p.Address))
	}
	return sockets, nil
}

func bindAll(want, have []Socket, routed bool) ([]Socket, error) {
	sockets := make([]Socket, 0, len(want))
	for _, s := range want {
		if i := slices.IndexFunc(have, func(h Socket) bool { return h.Address == s.Address && h.Service == s.Service }); i >= 0 {
			sockets = append(sockets, have[i])
			continue
		}
		at, err := netip.ParseAddrPort(s.Address)
		if err == nil {
			s.File, err = bind(at.Addr(), at.Port(), routed)
		}
		if err != nil {
			CloseAll(sockets, have...)
			return nil, errkind.Errorf(errkind.Unavailable, "bind %s for %s: %w", s.Address, s.Service, err)
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// bind returns a TCP socket that has the port to itself. MPTCP stays off: the
// sandbox's rules on binding cover TCP alone. An address that only a route makes
// local needs FREEBIND with IPv6, whose bind looks at the interfaces alone.
func bind(a netip.Addr, port uint16, routed bool) (*os.File, error) {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(port), Addr: a.As16()})
	if a.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), netip.AddrPortFrom(a, port).String())
	set := func(option, value int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value))
	}
	free := error(nil)
	if routed {
		free = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1))
	}
	// Connections of a former listener may linger on the port, which only a socket
	// with SO_REUSEADDR gets past; without it afterwards nobody gets past ours.
	err = errors.Join(free, set(unix.SO_REUSEADDR, 1))
	if err == nil {
		err = errors.Join(os.NewSyscallError("bind", unix.Bind(fd, to)), set(unix.SO_REUSEADDR, 0))
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// backlog is how many connections may wait for a VCM; the kernel lowers it to
// its own limit.
const backlog = 4096

// Listen lets clients connect; who accepts them is whoever has the sockets. It
// does nothing to sockets that listen already.
func Listen(sockets []Socket) error {
	for _, s := range sockets {
		fd := int(s.File.Fd())
		err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Listen(fd, backlog))
		if err != nil {
			_ = Refuse(sockets)
			return errkind.Errorf(errkind.Unavailable, "listen on %s for %s: %w", s.Address, s.Service, err)
		}
	}
	return nil
}

// Refuse undoes Listen, for every process that has the sockets: clients that
// nobody accepted are cut off and new ones refused. The ports stay reserved.
func Refuse(sockets []Socket) error {
	var errs []error
	for _, s := range sockets {
		fd := int(s.File.Fd())
		err := unix.Shutdown(fd, unix.SHUT_RD)
		if errors.Is(err, unix.ENOTCONN) { // nobody listened
			err = nil
		}
		errs = append(errs, err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0))
	}
	return errors.Join(errs...)
}

// CloseAll gives the ports up, except those that keep holds.
func CloseAll(sockets []Socket, keep ...Socket) {
	for _, s := range sockets {
		if s.File != nil && !slices.Contains(keep, s) {
			_ = s.File.Close()
		}
	}
}
