package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// ours marks the routes and addresses that we made, in the range of protocol
// numbers left to programs.
const ours = 0x54

// ifaProto is IFA_PROTO of linux/if_addr.h.
const ifaProto = 11

// MakeLocal makes one address of a real subnet local to this host. It needs
// CAP_NET_ADMIN. What exists already is no error.
//
// That is a route of its own in the kernel's local table ("AnyIP"): no interface
// gets the address, and the host accepts what reaches it on any network. Routers
// bring it that; neighbours on a link do where they ask for the address by ARP,
// which the host answers. To a neighbour's solicitation it answers for addresses
// of the interface alone: there an IPv6 address is given to the interface.
func MakeLocal(a netip.Addr) error {
	link := 0
	if a.Is6() {
		var err error
		if link, err = linkOf(a); err != nil {
			return err
		}
	}
	var err error
	if link != 0 {
		err = request(addressMessage(a, link), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	} else {
		err = route(a, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	}
	if err == nil || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return fmt.Errorf("make %s local: %w", a, err)
}

// Release takes back what MakeLocal did; where it did nothing, nothing happens.
func Release(address string) error {
	a, err := netip.ParseAddr(address)
	if err != nil || a.IsLoopback() {
		return err
	}
	err = route(a, unix.RTM_DELROUTE, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM) {
		err = nil
	}
	if err == nil && a.Is6() {
		err = takeBack(a)
	}
	if err != nil {
		return fmt.Errorf("release %s: %w", a, err)
	}
	return nil
}

// takeBack removes a from the interface that we gave it to.
func takeBack(a netip.Addr) error {
	table, err := syscall.NetlinkRIB(unix.RTM_GETADDR, unix.AF_INET6)
	if err != nil {
		return fmt.Errorf("addresses of this host: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(table)
	if err != nil {
		return fmt.Errorf("addresses of this host: %w", err)
	}
	for i := range messages {
		m := &messages[i]
		values := attributes(m)
		if m.Header.Type != unix.RTM_NEWADDR || len(values[ifaProto]) != 1 || values[ifaProto][0] != ours {
			continue
		}
		if have, ok := netip.AddrFromSlice(values[unix.IFA_ADDRESS]); !ok || have != a {
			continue
		}
		link := binary.NativeEndian.Uint32(m.Data[4:])
		if err := request(addressMessage(a, int(link)), unix.RTM_DELADDR, 0); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
	}
	return nil
}

// linkOf returns the interface whose link has the IPv6 address a, 0 if a is
// reached otherwise or not at all.
func linkOf(a netip.Addr) (index int, err error) {
	body := []byte{unix.AF_INET6, byte(a.BitLen()), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	answer, err := exchange(appendAttribute(body, unix.RTA_DST, a.AsSlice()), unix.RTM_GETROUTE, 0)
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("route to %s: %w", a, err)
	}
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err == nil && (len(messages) == 0 || messages[0].Header.Type != unix.RTM_NEWROUTE || len(messages[0].Data) < unix.SizeofRtMsg) {
		err = errUnexpected
	}
	if err != nil {
		return 0, fmt.Errorf("route to %s: %w", a, err)
	}
	values := attributes(&messages[0])
	direct := messages[0].Data[7] == unix.RTN_UNICAST && values[unix.RTA_GATEWAY] == nil && values[unix.RTA_VIA] == nil
	if !direct || len(values[unix.RTA_OIF]) != 4 {
		return 0, nil
	}
	return int(binary.NativeEndian.Uint32(values[unix.RTA_OIF])), nil
}

func attributes(m *syscall.NetlinkMessage) map[uint16][]byte {
	out := map[uint16][]byte{}
	all, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return out
	}
	for _, a := range all {
		out[a.Attr.Type] = a.Value
	}
	return out
}

// addressMessage is about a, alone on its subnet and without the probe for
// duplicates, at the interface link.
func addressMessage(a netip.Addr, link int) []byte {
	body := []byte{unix.AF_INET6, byte(a.BitLen()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	body = binary.NativeEndian.AppendUint32(body, uint32(link))
	body = appendAttribute(body, unix.IFA_LOCAL, a.AsSlice())
	body = appendAttribute(body, unix.IFA_ADDRESS, a.AsSlice())
	return appendAttribute(body, ifaProto, []byte{ours})
}

// route makes or removes the local route of one address.
func route(a netip.Addr, kind, flags uint16) error {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	family := byte(unix.AF_INET6)
	if a.Is4() {
		family = unix.AF_INET
	}
	body := []byte{
		family, byte(a.BitLen()), 0, 0, // family, length of destination and source prefix, TOS
		unix.RT_TABLE_LOCAL, ours, unix.RT_SCOPE_HOST, unix.RTN_LOCAL,
		0, 0, 0, 0, // flags
	}
	body = appendAttribute(body, unix.RTA_DST, a.AsSlice())
	body = appendAttribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(lo.Index)))
	return request(body, kind, flags)
}

func appendAttribute(body []byte, kind uint16, value []byte) []byte {
	body = binary.NativeEndian.AppendUint16(body, uint16(4+len(value)))
	body = binary.NativeEndian.AppendUint16(body, kind)
	body = append(body, value...)
	return append(body, make([]byte, -len(value)&3)...)
}

var errUnexpected = errors.New("netlink: unexpected answer")

// request is an exchange whose answer is yes or no.
func request(body []byte, kind, flags uint16) error {
	answer, err := exchange(body, kind, flags|unix.NLM_F_ACK)
	if err == nil && answer != nil {
		err = errUnexpected
	}
	return err
}

// exchange sends one rtnetlink request and returns the answer, nil for a bare yes.
func exchange(body []byte, kind, flags uint16) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|flags)
	message = append(message, 1, 0, 0, 0, 0, 0, 0, 0) // sequence number, port of the sender
	if err := unix.Sendto(fd, append(message, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 {
		return nil, errUnexpected
	}
	if binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return buf[:n], nil
	}
	// Behind the header is the negative error number, 0 for success.
	if no := -int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])); no != 0 {
		return nil, unix.Errno(no)
	}
	return nil, nil
}
