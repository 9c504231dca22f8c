package isolation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
)

// resources has one VCM take all it can get of the machine, from inside and from
// its clients' side, while another vends.
func (s *Suite) resources(ctx context.Context) (err error) {
	p, err := open(ctx, s.hostile, s.dir("resources"), s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	greedy, _, err := p.equip(ctx, "greedy")
	if err != nil {
		return err
	}
	_, quiet, err := p.equip(ctx, "quiet")
	if err != nil {
		return err
	}
	for _, attack := range []string{"big-file", "fill-store", "many-files", "fork-bomb", "threads", "memory"} {
		vended, err := p.whileVending(ctx, quiet, func() error {
			result, detail, err := greedy.order(ctx, attack, nil)
			if err != nil {
				return err
			}
			if result == allowed {
				s.hole("%s is not bounded: %s", attack, detail)
			}
			used, err := diskUsed(greedy.dir())
			if err != nil {
				return err
			}
			if used > 64<<20 {
				s.hole("%s: the data directory holds %d MiB", attack, used>>20)
			}
			s.print("isolation: %-12s ends with %s %s; the data directory holds %d KiB\n", attack, result, detail, used>>10)
			return greedy.restart(ctx) // it may hold what it took
		})
		if err != nil {
			return fmt.Errorf("%s: %w", attack, err)
		}
		if vended == 0 {
			s.hole("%s of one VCM keeps another from vending", attack)
		}
	}
	return s.connections(ctx, p, greedy, quiet.Address, func(fn func() error) (int64, error) { return p.whileVending(ctx, quiet, fn) })
}

// whileVending counts the tokens that v issues while fn runs. A refused one is an
// error.
func (p *platform) whileVending(ctx context.Context, v interface {
	Client(context.Context) (*vending.Client, error)
}, fn func() error) (int64, error) {
	c, err := v.Client(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	accounts, err := p.Accounts(supplyGroup.SGC, 1, 8)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var vended atomic.Int64
	var failed error
	var till sync.WaitGroup
	till.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := c.API.IssueCreditToken(ctx, vending.MessageID(), c.Token, accounts[i%len(accounts)].Config, 0, 10, 0, 0); err != nil && ctx.Err() == nil {
				failed = err
				return
			}
			vended.Add(1)
			time.Sleep(5 * time.Millisecond) // a till at work, not a load
		}
	})
	time.Sleep(100 * time.Millisecond)
	err = fn()
	time.Sleep(100 * time.Millisecond)
	cancel()
	till.Wait()
	return vended.Load(), errors.Join(err, failed)
}

func diskUsed(dir string) (used int64, err error) {
	err = filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
			used += st.Blocks * 512
		}
		return err
	})
	return used, err
}

// connections opens as many connections to one VCM as 10 000 clients would.
func (s *Suite) connections(ctx context.Context, p *platform, greedy *vcm, _ string, vending func(func() error) (int64, error)) error {
	want := 10_000
	if s.Short {
		want = 1000
	}
	address := ""
	for _, e := range greedy.report.Endpoints {
		if e.ServiceName == "tokenapi" {
			address = e.Address
		}
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	files.Cur = files.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return err
	}
	want = min(want, int(files.Cur)-200)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	vended, err := vending(func() error {
		d := net.Dialer{Timeout: 2 * time.Second}
		for range want {
			c, err := d.DialContext(ctx, "tcp", address)
			if err != nil {
				continue // refused is as good as any
			}
			open = append(open, c)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if vended == 0 {
		s.hole("%d connections to one VCM keep another from vending", want)
	}
	held, err := openDescriptors(greedy.process.PID)
	if err != nil && os.Geteuid() == 0 {
		return err
	}
	if !greedy.process.Alive() {
		s.hole("%d connections end the VCM they are made to", want)
	}
	s.print("isolation: %d connections: %d opened, the VCM lives and holds %d descriptors, its neighbour vended %d tokens meanwhile\n", want, len(open), held, vended)
	return nil
}

func openDescriptors(pid int) (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries), err
}
