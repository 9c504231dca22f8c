package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

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

// Socket is a bound listener of a VCM.
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

// Bind binds every port of a VCM on address, all or none. An address that is
// not local to the host yet is made so, where the process may.
func Bind(ctx context.Context, address string) ([]Socket, error) {
	sockets, err := bindAll(ctx, address, false)
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		return sockets, err
	}
	a, parseErr := netip.ParseAddr(address)
	if parseErr != nil {
		return nil, err
	}
	if routeErr := MakeLocal(a); routeErr != nil {
		return nil, errkind.Errorf(errkind.Unavailable,
			"%w; %s is no address of this host: give it to an interface, or run 'ip route add local %s dev lo' with privilege (%w)", err, a, a, routeErr)
	}
	return bindAll(ctx, address, true)
}

func bindAll(ctx context.Context, address string, routed bool) ([]Socket, error) {
	sockets := Endpoints(address)
	for i, s := range sockets {
		f, err := bind(ctx, s.Address, routed)
		if err != nil {
			CloseAll(sockets[:i])
			return nil, errkind.Errorf(errkind.Unavailable, "bind %s for %s: %w", s.Address, s.Service, err)
		}
		sockets[i].File = f
	}
	return sockets, nil
}

// Usable reports whether every port of a VCM can be bound on a. An address that
// became local for that stays so only if it can.
func Usable(ctx context.Context, a netip.Addr) error {
	sockets, err := Bind(ctx, a.String())
	CloseAll(sockets)
	if err != nil {
		_ = Release(a)
	}
	return err
}

// CloseAll closes the sockets on this side.
func CloseAll(sockets []Socket) {
	for _, s := range sockets {
		if s.File != nil {
			_ = s.File.Close()
		}
	}
}

// bind returns a listening TCP socket. MPTCP is off: the sandbox's rules on
// binding cover TCP alone. An address that only a route makes local needs
// FREEBIND with IPv6, whose bind looks at the interfaces alone.
func bind(ctx context.Context, address string, routed bool) (*os.File, error) {
	var lc net.ListenConfig
	if routed {
		lc.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
			return errors.Join(ctl, err)
		}
	}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	tl, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("%s is not a TCP listener", address)
	}
	return tl.File()
}
