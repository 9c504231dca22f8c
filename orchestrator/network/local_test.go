package network_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// hostMark makes the test binary a host of its own: it runs in a network
// namespace and is root there, whoever runs the test. nobodyMark makes it somebody
// without privilege.
const (
	hostMark   = "network-test-host"
	nobodyMark = "network-test-nobody"
)

func TestMain(m *testing.M) {
	be, ok := map[string]func() error{hostMark: beHost, nobodyMark: beNobody}[os.Args[0]]
	if !ok {
		os.Exit(m.Run())
	}
	if err := be(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func TestRealSubnets(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{hostMark}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "ok" {
		t.Errorf("%v\n%s", err, out)
	}
}

// beHost is the test inside the namespace, which has no address at all.
func beHost() error {
	if err := loopbackUp(); err != nil {
		return err
	}
	for _, address := range []string{"192.0.2.7", "2001:db8::7"} {
		if err := serveOn(address); err != nil {
			return fmt.Errorf("%s: %w", address, err)
		}
	}
	return nil
}

func serveOn(address string) error {
	a := netip.MustParseAddr(address)
	if l, err := net.Listen("tcp", net.JoinHostPort(address, "9443")); err == nil {
		l.Close()
		return fmt.Errorf("the address is local from the start; the test would prove nothing")
	}
	sockets, err := network.Reserve(network.Place{Address: address})
	if err != nil {
		return err
	}
	if err := network.Listen(sockets); err != nil {
		return err
	}
	for _, s := range sockets {
		c, err := net.DialTimeout("tcp", s.Address, 5*time.Second)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Service, err)
		}
		c.Close()
	}
	if l, err := net.Listen("tcp", net.JoinHostPort(a.Next().String(), "9443")); err == nil {
		l.Close()
		return fmt.Errorf("its neighbour became local, too")
	}
	network.CloseAll(sockets)
	if err := network.MakeLocal(a); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	for range 2 {
		if err := network.Release(address); err != nil {
			return fmt.Errorf("release: %w", err)
		}
	}
	if l, err := net.Listen("tcp", net.JoinHostPort(address, "9443")); err == nil {
		l.Close()
		return fmt.Errorf("it is still local after Release")
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}

// Without privilege the error says what to do. Who runs the test as root runs it as
// nobody here.
func TestRealSubnetWithoutPrivilege(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{nobodyMark}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ip route add local 192.0.2.7 dev lo") {
		t.Errorf("%v\n%s", err, out)
	}
}

// beNobody prints why he cannot have an address of a real subnet.
func beNobody() error {
	_, err := network.Reserve(network.Place{Address: "192.0.2.7"})
	if !errkind.Is(err, errkind.Unavailable) {
		return fmt.Errorf("reserve: %w", err)
	}
	fmt.Println(err)
	return nil
}
