package fdrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func (c *Conn) write(m message, files []*os.File) error {
	p, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(p) > MaxPacket {
		return fmt.Errorf("message of %d bytes exceeds %d", len(p), MaxPacket)
	}
	if len(files) > MaxFiles {
		return fmt.Errorf("%d descriptors exceed %d", len(files), MaxFiles)
	}
	oob, err := encodeRights(files)
	if err != nil {
		return err
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.uc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, _, err = c.uc.WriteMsgUnix(p, oob, nil)
	runtime.KeepAlive(files) // their numbers are in oob
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if c.lasting {
			return errDropped
		}
		_ = c.uc.Close() // or everybody who waits for writeMu would wait as long again
	}
	return err
}

// errDropped is a message that a peer which does not read will never see.
var errDropped = errors.New("the peer does not read; the message was dropped")

// encodeRights puts descriptors into a control message.
func encodeRights(files []*os.File) ([]byte, error) {
	if len(files) == 0 {
		return nil, nil
	}
	fds, err := Descriptors(files)
	if err != nil {
		return nil, fmt.Errorf("descriptor to send: %w", err)
	}
	return unix.UnixRights(fds...), nil
}

// Descriptors are the numbers of files, for as long as the caller keeps these. It
// goes around os.File.Fd, which may make a descriptor blocking for everybody who
// shares it.
func Descriptors(files []*os.File) ([]int, error) {
	fds := make([]int, len(files))
	for i, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds[i] = int(fd) })
		}
		if err != nil {
			return nil, err
		}
	}
	return fds, nil
}

// buffers holds packets while they are read. A connection that waits has none,
// so that a thousand idle ones cost little.
var buffers = sync.Pool{New: func() any { return new([MaxPacket]byte) }}

func read(raw syscall.RawConn, oob []byte) (message, []*os.File, error) {
	var buf *[MaxPacket]byte
	var n, oobn, flags int
	var err error
	waitErr := raw.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[MaxPacket]byte)
		for {
			n, oobn, flags, _, err = unix.Recvmsg(int(fd), buf[:], oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if errors.Is(err, unix.EAGAIN) {
			buffers.Put(buf)
			return false
		}
		return true
	})
	if waitErr != nil {
		return message{}, nil, waitErr
	}
	defer func() { clear(buf[:max(n, 0)]); buffers.Put(buf) }()
	if err != nil {
		return message{}, nil, os.NewSyscallError("recvmsg", err)
	}
	files, err := rights(oob[:oobn])
	if err != nil {
		return message{}, nil, err
	}
	m, err := decode(buf[:n], flags)
	if err != nil {
		closeAll(files)
		return message{}, nil, err
	}
	return m, files, nil
}

func decode(p []byte, flags int) (message, error) {
	if len(p) == 0 {
		return message{}, io.EOF
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return message{}, fmt.Errorf("the peer sent a message larger than %d bytes or %d descriptors", MaxPacket, MaxFiles)
	}
	var m message
	if err := decodeStrict(p, &m); err != nil {
		return message{}, fmt.Errorf("the peer sent a malformed message: %w", err)
	}
	return m, nil
}

func rights(oob []byte) ([]*os.File, error) {
	fds, err := Rights(oob)
	var files []*os.File
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), "received"))
	}
	return files, err
}

// Rights are the descriptors in a control message.
func Rights(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	for i := range msgs {
		if more, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, more...)
		}
	}
	return fds, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func decodeStrict(p []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("trailing data")
	}
	return nil
}
