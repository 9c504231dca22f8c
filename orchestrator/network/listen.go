package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// Port is where a VCM offers a service.
type Port struct {
	Service string
	Port    uint16
}

// Ports returns the services of a VCM and their ports, in the order in which
// their sockets are handed over.
func Ports() []Port {
	return []Port{
		{vcmcontrol.ServiceTokenAPI, 9443},
		{vcmcontrol.ServiceSMAPI, 5100},
		{vcmcontrol.ServiceSSHAdmin, 2201},
		{vcmcontrol.ServiceMonitor, 2202},
		{vcmcontrol.ServicePrismToken, 2203},
		{vcmcontrol.ServiceConductor, 2204},
	}
}

// Socket is a bound port of a VCM.
type Socket struct {
	Service string
	Address string
	File    *os.File
}

// Endpoints returns what the sockets of a VCM at a are, without binding them.
func Endpoints(address string) []Socket {
	out := make([]Socket, 0, len(Ports()))
	for _, p := range Ports() {
		out = append(out, Socket{Service: p.Service, Address: net.JoinHostPort(address, strconv.Itoa(int(p.Port)))})
	}
	return out
}

// Reserve binds every port of a VCM on address, all or none. Nobody listens yet:
// clients are refused, and no other process can bind the ports. An address that
// is not local to the host is made so, where the process may.
func Reserve(address string) ([]Socket, error) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "%q is not an IP address", address)
	}
	sockets, err := bindAll(a, false)
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		return sockets, err
	}
	if routeErr := MakeLocal(a); routeErr != nil {
		return nil, errkind.Errorf(errkind.Unavailable,
			"%w; %s is no address of this host: give it to an interface, or run 'ip route add local %s dev lo' with privilege (%w)", err, a, a, routeErr)
	}
	if sockets, err = bindAll(a, true); err != nil {
		return nil, errors.Join(err, Release(address))
	}
	return sockets, nil
}

func bindAll(a netip.Addr, routed bool) ([]Socket, error) {
	sockets := Endpoints(a.String())
	for i, p := range Ports() {
		f, err := bind(a, p.Port, routed)
		if err != nil {
			CloseAll(sockets[:i])
			return nil, errkind.Errorf(errkind.Unavailable, "bind %s for %s: %w", sockets[i].Address, p.Service, err)
		}
		sockets[i].File = f
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

// CloseAll gives the ports up.
func CloseAll(sockets []Socket) {
	for _, s := range sockets {
		if s.File != nil {
			_ = s.File.Close()
		}
	}
}
