package conductor_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/conductor"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// kills is how often the module is killed in each of the two tests.
const kills = 100

// childDir, set in the environment, makes the test binary a module with the
// store in that directory, served on a socket whose address it prints.
const childDir = "TESSERAE_TEST_MODULE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := serveChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fileCounter is a device's counter that survives the process.
type fileCounter string

func (c fileCounter) Raise(_ context.Context, v uint64) (uint64, error) {
	raw, err := os.ReadFile(string(c))
	if err != nil && !os.IsNotExist(err) {
		return 0, err
	}
	now, _ := strconv.ParseUint(string(raw), 10, 64)
	if v > now {
		now = v
		tmp := string(c) + ".new"
		if err := os.WriteFile(tmp, []byte(strconv.FormatUint(v, 10)), 0o600); err != nil {
			return 0, err
		}
		if err := os.Rename(tmp, string(c)); err != nil {
			return 0, err
		}
	}
	return now, nil
}

// serveChild is a module until it is killed or its standard input ends.
func serveChild(dir string) error {
	data, err := os.Open(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := store.Open(ctx, store.Config{Dir: data, Key: make([]byte, 32), Counter: fileCounter(filepath.Join(dir, "counter")),
		Quota: 64 << 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	m, err := tsm.Open(ctx, tsm.Config{Vault: disk{s}, ModuleID: moduleID, Clock: clock.NewFake(noon)})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"address": l.Addr().String(), "key": m.PublicKeyRecord()}); err != nil {
		return err
	}
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := conductor.New(conductor.Config{Module: m}).Serve(ctx, l); err != nil {
		return err
	}
	return s.Close()
}

// victim is the module's process.
type victim struct {
	t       *testing.T
	dir     string
	cmd     *exec.Cmd
	stdin   io.Closer
	address string
	key     string
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	v := &victim{t: t, dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(v.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	v.start()
	t.Cleanup(v.kill)
	return v
}

func (v *victim) start() {
	v.t.Helper()
	v.cmd = exec.Command(os.Args[0])
	v.cmd.Env = append(os.Environ(), childDir+"="+v.dir)
	v.cmd.Stderr = os.Stderr
	stdin, err := v.cmd.StdinPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	v.stdin = stdin
	out, err := v.cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	var hello struct{ Address, Key string }
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&hello); err != nil {
		v.t.Fatalf("the module does not come up again: %v", err)
	}
	v.address, v.key = hello.Address, hello.Key
}

func (v *victim) kill() {
	if v.cmd == nil {
		return
	}
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait()
	_ = v.stdin.Close()
	v.cmd = nil
}

// ask sends a command and reports whether an answer came before the module died.
func ask(c net.Conn, text string) (status string, values []string, alive bool) {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(frameOf(text)); err != nil {
		return "", nil, false
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(c, head); err != nil {
		return "", nil, false
	}
	body := make([]byte, int(head[0])<<8|int(head[1])-6)
	if _, err := io.ReadFull(c, body); err != nil {
		return "", nil, false
	}
	line := string(body[:len(body)-5])
	for _, f := range strings.Split(line[7:], "~") {
		if f != "" {
			values = append(values, f[1:])
		}
	}
	return line[5:7], values, true
}

// killAfter kills the module after a random moment; wait returns when it is dead.
func (v *victim) killAfter(longest time.Duration) (wait func()) {
	done := make(chan struct{})
	after := rand.N(longest)
	go func() {
		defer close(done)
		time.Sleep(after)
		v.kill()
	}()
	return func() { <-done }
}

// remaining reads a register's unit limit.
func (c *client) remaining(register int) uint32 {
	c.t.Helper()
	for _, f := range strings.Split(c.must(1, "GA", fmt.Sprintf("N%d", register))[0], ";") {
		if strings.HasPrefix(f, "ULM") {
			n, err := strconv.ParseUint(f[3:], 16, 32)
			if err != nil {
				c.t.Fatal(err)
			}
			return uint32(n)
		}
	}
	c.t.Fatal("no ULM")
	return 0
}

// prepare gives the module to a new KMC and loads that KMC's keys.
func (v *victim) prepare(groups ...kmc.Group) *rig {
	v.t.Helper()
	r := &rig{t: v.t, clock: clock.NewFake(noon), address: v.address}
	r.kmc = newKMC(v.t)
	if _, err := r.kmc.AddModule(v.key); err != nil {
		v.t.Fatal(err)
	}
	newClient(v.t, v.address).loadKeys(r, groups...)
	return r
}

// kill -9 while tokens are made: what is left plus what came out never exceeds
// the limit, and no debit is taken back.
func TestKilledWhileVending(t *testing.T) {
	t.Parallel()
	const limit = 50_000_000
	v := newVictim(t)
	v.prepare(group(123456, func(g *kmc.Group) { g.ULM = limit }))
	issued, before := uint64(0), uint32(limit)
	for i := range kills {
		conn, err := net.Dial("tcp", v.address)
		if err != nil {
			t.Fatal(err)
		}
		dead := v.killAfter(20 * time.Millisecond)
		asked := uint64(0)
		for {
			amount := rand.N(uint32(1000)) + 1
			asked += uint64(amount)
			status, _, alive := ask(conn, fmt.Sprintf("SM?VCN1~P%s~N1~N11~N2~N0~H%04X~H%s~", pan, amount, tidOf(noon)))
			if !alive {
				break
			}
			if status != "00" {
				t.Fatalf("status %s", status)
			}
			issued += uint64(amount)
		}
		dead()
		_ = conn.Close()
		v.start()
		after := newClient(t, v.address).remaining(1)
		if after > before || uint64(before-after) > asked {
			t.Fatalf("kill %d: ULM %d -> %d, asked for %d", i, before, after, asked)
		}
		if uint64(limit)-uint64(after) < issued {
			t.Fatalf("kill %d: %d units are out and only %d debited", i, issued, limit-after)
		}
		before = after
	}
	if issued == 0 {
		t.Error("no token was made: this test showed nothing")
	}
}

// kill -9 while keys are loaded: every key is loaded or not, loading goes on
// from the stored file, and in the end all keys vend.
func TestKilledWhileLoading(t *testing.T) {
	t.Parallel()
	v := newVictim(t)
	r := v.prepare(group(1))
	var groups []kmc.Group
	for i := range 60 {
		groups = append(groups, group(1000+i, func(g *kmc.Group) { g.ULM = 500 }))
	}
	if err := r.kmc.AddGroups(groups); err != nil {
		t.Fatal(err)
	}
	if _, err := r.kmc.AuthoriseAll(moduleID); err != nil {
		t.Fatal(err)
	}
	key, err := r.kmc.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	session := 0
	var file keyload.KLF
	next := len(file.Keys)
	window := 30 * time.Millisecond
	for range kills {
		loaded := session*len(groups) + next
		conn, err := net.Dial("tcp", v.address)
		if err != nil {
			t.Fatal(err)
		}
		dead := v.killAfter(window)
		for alive := true; alive; {
			if next == len(file.Keys) { // the next session, or the first
				if session > 0 {
					_, _, alive = ask(conn, "SM?KFPTEST-KMC~") // answered before the last kill, perhaps
					if !alive {
						break
					}
				}
				var v []string
				if _, v, alive = ask(conn, "SM?KCP"+key.Record().String()+"~"); !alive {
					break
				}
				answer, err := r.kmc.Answer(v[0], noon)
				if err != nil {
					t.Fatal(err)
				}
				parsed, err := keyload.ParseKLF(answer.Text)
				if err != nil {
					t.Fatal(err)
				}
				var status string
				status, _, alive = ask(conn, "SM?KRP"+parsed.Response+"~")
				if !alive {
					break // taken or not, the next round begins anew
				}
				if status != "00" {
					t.Fatalf("KR: %s", status)
				}
				file, next = parsed, 0
				session++
			}
			var status string
			var values []string
			status, values, alive = ask(conn, "SM?KLPTEST-KMC~P"+file.Keys[next].String()+"~")
			switch {
			case !alive: // loaded or not; the same record again is the same key
			case status == "00" && values[0] == strconv.Itoa(next+1):
				next++
			default:
				t.Fatalf("KL of key %d: %s %v", next, status, values)
			}
		}
		dead()
		_ = conn.Close()
		v.start()
		if session*len(groups)+next == loaded { // a busy machine gets nothing done in that time
			window = min(2*window, 400*time.Millisecond)
		}
	}
	if session == 0 {
		t.Fatal("no session came about: this test showed nothing")
	}
	r.address = v.address
	newClient(t, v.address).finishLoading(r)
}

// finishLoading loads everything once more without being killed, and vends.
func (c *client) finishLoading(r *rig) {
	c.t.Helper()
	_, _ = c.call("KF", "PTEST-KMC")
	c.loadKeys(r)
	for register := 2; register <= 61; register++ {
		if got := c.remaining(register); got != 500 {
			c.t.Errorf("register %d has %d units left", register, got)
		}
		c.must(2, "VC", fmt.Sprintf("N%d", register), "P"+pan, "N1", "N11", "N2", "N0", "H0001", "H"+tidOf(noon))
	}
}
