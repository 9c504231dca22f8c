//go:build hostile

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// task is what the isolation suite tells a VCM to do that it has taken over:
// one JSON line there, one back.
type task struct {
	Attack string            `json:"attack"`
	Args   map[string]string `json:"args"`
}

// outcome: Result is "allowed" if the attack had its effect, else the kernel's
// word for why not.
type outcome struct {
	Result string `json:"result"`
	Detail string `json:"detail"`
}

// takenOver gives the port of the security-module API to the attacker.
func takenOver(m *module, service string, l net.Listener) func(context.Context) error {
	if service != vcmcontrol.ServiceSMAPI {
		return nil
	}
	return func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { _ = l.Close() })()
		for {
			c, err := l.Accept()
			if err != nil {
				return nil
			}
			go m.obey(ctx, c)
		}
	}
}

func (m *module) obey(ctx context.Context, c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	line, err := bufio.NewReader(c).ReadBytes('\n')
	if err != nil {
		return
	}
	var o task
	if err := json.Unmarshal(line, &o); err != nil {
		return
	}
	var out outcome
	switch attack, known := attacks[o.Attack]; {
	case o.Attack == "census":
		out.Detail, err = openFiles()
	case o.Attack == "canary":
		out.Detail, err = m.plantCanary(ctx)
	case o.Attack == "lease":
		out.Detail, err = m.lease(ctx, o.Args)
	case known:
		out.Detail, err = attack(o.Args)
	default:
		err = errors.New("unknown attack")
	}
	out.Result = "allowed"
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		out.Result = unix.ErrnoName(errno)
	case err != nil:
		out.Result = err.Error()
	}
	_ = json.NewEncoder(c).Encode(out)
}

// canary is held for good, as a key would be.
var canary [32]byte

// plantCanary makes a key, keeps it in memory and stores it, sealed.
func (m *module) plantCanary(ctx context.Context) (string, error) {
	_, _ = rand.Read(canary[:])
	err := m.store.Update(ctx, func(tx *store.Tx) error { return tx.Bucket("canary").Put([]byte("key"), canary[:]) })
	return base64.StdEncoding.EncodeToString(canary[:]), err
}

// openFiles lists what the process has open, by asking for each descriptor: it
// has no /proc.
func openFiles() (string, error) {
	out := ""
	for fd := range 4096 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			out += fmt.Sprintf("%d:%o ", fd, st.Mode&unix.S_IFMT)
		}
	}
	return out, nil
}

// onThread runs fn on a thread that ends with it, so that what fn does to its
// thread stays there.
func onThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

func exitStatus(pid int) error {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil {
		return err
	}
	if ws.Signaled() {
		return errors.New(unix.SignalName(ws.Signal()))
	}
	return nil
}

func closed(fd int, err error) error {
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var buf [64]byte
	n, err := f.Read(buf[:])
	if err == io.EOF { // it may be empty
		err = nil
	}
	return fmt.Sprintf("%d bytes", n), err
}
