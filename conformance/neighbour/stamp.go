package neighbour

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stamped is a connection that knows when its last request left and when the
// last bytes of the answer reached this machine, which is the kernel's word: how
// long the till then waits for a processor to read them is not the server's doing.
type stamped struct {
	*net.TCPConn
	raw           syscall.RawConn
	sent, arrived time.Time // without the monotonic clock, which the kernel's word lacks
}

func dialStamped(ctx context.Context, network, address string) (*stamped, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(errors.New("not a TCP connection"), c.Close())
	}
	s := &stamped{TCPConn: tcp}
	s.raw, err = tcp.SyscallConn()
	if err == nil {
		var set error
		err = s.raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		})
		err = errors.Join(err, os.NewSyscallError("setsockopt", set))
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

func (s *stamped) Write(p []byte) (int, error) {
	s.sent = time.Now().Round(0)
	return s.TCPConn.Write(p)
}

func (s *stamped) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	said := make([]byte, unix.CmsgSpace(16))
	var saidLen int
	waited := s.raw.Read(func(fd uintptr) bool {
		for {
			n, saidLen, _, _, err = unix.Recvmsg(int(fd), p, said, 0)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	switch {
	case waited != nil:
		return 0, waited
	case err != nil:
		return 0, os.NewSyscallError("recvmsg", err)
	case n == 0:
		return 0, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(said[:saidLen])
	if err != nil {
		return n, err
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			s.arrived = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return n, nil
}

// took is how long the last answer took to come.
func (s *stamped) took() (time.Duration, error) {
	if s.arrived.Before(s.sent) {
		return 0, errors.New("the kernel did not say when the answer arrived")
	}
	return s.arrived.Sub(s.sent), nil
}
