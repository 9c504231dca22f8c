package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes that we made, in the range left to programs.
const routeProtocol = 0x54

// MakeLocal makes one address of a real subnet local to this host, by a route
// of its own in the kernel's local table ("AnyIP"): no interface gets the
// address, and the host answers for it on every network it is part of. It needs
// CAP_NET_ADMIN. A route that exists is no error.
func MakeLocal(a netip.Addr) error {
	err := route(a, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// Release takes back what MakeLocal did; where it did nothing, nothing happens.
func Release(address string) error {
	a, err := netip.ParseAddr(address)
	if err != nil || a.IsLoopback() {
		return err
	}
	err = route(a, unix.RTM_DELROUTE, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

func route(a netip.Addr, kind uint16, flags uint16) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if err := unix.Sendto(fd, message(a, lo.Index, kind, flags), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	// The answer is a header and the negative error number, 0 for success.
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return errors.New("netlink: unexpected answer")
	}
	if no := -int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])); no != 0 {
		return fmt.Errorf("local route for %s: %w", a, unix.Errno(no))
	}
	return nil
}

// message is one rtnetlink request about a host route to the loopback interface.
func message(a netip.Addr, lo int, kind, flags uint16) []byte {
	family := byte(unix.AF_INET6)
	if a.Is4() {
		family = unix.AF_INET
	}
	body := []byte{
		family, byte(a.BitLen()), 0, 0, // family, length of destination and source prefix, TOS
		unix.RT_TABLE_LOCAL, routeProtocol, unix.RT_SCOPE_HOST, unix.RTN_LOCAL,
		0, 0, 0, 0, // flags
	}
	attribute := func(kind uint16, value []byte) {
		body = binary.NativeEndian.AppendUint16(body, uint16(4+len(value)))
		body = binary.NativeEndian.AppendUint16(body, kind)
		body = append(body, value...) // all of ours are multiples of four bytes
	}
	attribute(unix.RTA_DST, a.AsSlice())
	attribute(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(lo)))
	out := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	out = binary.NativeEndian.AppendUint16(out, kind)
	out = binary.NativeEndian.AppendUint16(out, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	out = append(out, 1, 0, 0, 0, 0, 0, 0, 0) // sequence number, port of the sender
	return append(out, body...)
}
