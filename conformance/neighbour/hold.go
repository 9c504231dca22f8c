package neighbour

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Hold keeps n connections to address open that shake hands and say nothing more,
// and opens those again that are closed on it, until in ends. It prints how many are open when
// all have been tried once, and in the end how many were and how many had been
// opened.
//
// It is what a process of its own does (see Holder): beside the till it would
// measure itself.
func Hold(address string, n int, in io.Reader, out io.Writer) error {
	limit := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Cur = limit.Max; limit.Cur < uint64(n)+64 {
		return fmt.Errorf("%d connections are more than the %d descriptors that this process may have", n, limit.Cur)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg, tried sync.WaitGroup
	var open, opened atomic.Int64
	tried.Add(n)
	for range n {
		wg.Go(func() {
			once := sync.OnceFunc(tried.Done)
			defer once()
			for ctx.Err() == nil {
				d := net.Dialer{Timeout: 5 * time.Second}
				if c, err := d.DialContext(ctx, "tcp", address); err == nil {
					open.Add(1)
					opened.Add(1)
					stop := context.AfterFunc(ctx, func() { _ = c.Close() })
					// Who it is does not matter here.
					_ = tls.Client(c, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
					once()
					_, _ = c.Read(make([]byte, 1)) // until it is closed
					stop()
					_ = c.Close()
					if ctx.Err() == nil {
						open.Add(-1)
					}
				}
				once()
				select {
				case <-time.After(100 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	tried.Wait()
	fmt.Fprintf(out, "%d\n", open.Load())
	_, _ = io.Copy(io.Discard, in)
	cancel()
	wg.Wait()
	_, err := fmt.Fprintf(out, "%d %d\n", open.Load(), opened.Load())
	return err
}

// Holder is a process that holds connections.
type Holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// StartHolder starts cmd, which calls Hold, as a client of elsewhere, and waits
// until it has tried all connections.
func StartHolder(cmd *exec.Cmd) (h *Holder, held int, err error) {
	h = &Holder{cmd: cmd}
	cmd.Stderr = os.Stderr
	if h.in, err = cmd.StdinPipe(); err != nil {
		return nil, 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	h.out = bufio.NewReader(out)
	if err := StartElsewhere(cmd); err != nil {
		return nil, 0, err
	}
	if _, err = fmt.Fscan(h.out, &held); err != nil {
		return nil, 0, errors.Join(err, h.kill())
	}
	return h, held, nil
}

// End closes the connections: so many were open, and so many had been opened.
func (h *Holder) End() (held, opened int, err error) {
	if err := h.in.Close(); err != nil {
		return 0, 0, errors.Join(err, h.kill())
	}
	if _, err := fmt.Fscan(h.out, &held, &opened); err != nil {
		return 0, 0, errors.Join(err, h.kill())
	}
	return held, opened, h.cmd.Wait()
}

func (h *Holder) kill() error { return errors.Join(h.cmd.Process.Kill(), h.cmd.Wait()) }
