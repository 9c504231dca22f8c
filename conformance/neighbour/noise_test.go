package neighbour_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/neighbour"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
)

const (
	noisyClients = 64
	noisyMeters  = 2000
	// fewConnections is what a test can wait for until they are made.
	fewConnections, manyConnections = 2000, 10_000
	// manyThreads is what a VCM may have besides those that its runtime makes for as
	// many.
	manyThreads = 100
)

// noise is what a VCM does to another. It starts it, for at most so long, and
// returns how to end it, which says what it was.
type noise struct {
	name  string
	start func(t testing.TB, v *vcm, atMost time.Duration) (stop func() string)
}

// noises are what a tenant's clients can do to his VCM, with so many connections,
// and what one that was taken over can do from inside.
func noises(connections int) []noise {
	vends := noise{"vends", func(t testing.TB, v *vcm, _ time.Duration) func() string {
		stop := v.saturate(t)
		return func() string {
			r := stop()
			stats := v.stats(v.uuid)
			return fmt.Sprintf("%d clients, %d tokens, %d refusals %v in %.1f s; disk %d of %d bytes", r.Clients, r.Tokens, r.Errors, r.Codes, r.Seconds, stats.Disk, stats.DiskQuota)
		}
	}}
	crowd := noise{"connections", func(t testing.TB, v *vcm, _ time.Duration) func() string {
		h, held, err := neighbour.StartHolder(taken.clients(v.server.Address, fmt.Sprint(connections)))
		if err != nil {
			t.Fatal(err)
		}
		return func() string {
			now, opened, err := h.End()
			if err != nil {
				t.Error(err)
			}
			return fmt.Sprintf("%d connections held, %d in the end, %d opened", held, now, opened)
		}
	}}
	all := noise{"all", func(t testing.TB, v *vcm, atMost time.Duration) func() string {
		ends := []func() string{vends.start(t, v, atMost), crowd.start(t, v, atMost), forks().start(t, v, atMost)}
		return func() string {
			var said []string
			for i := range ends {
				said = append(said, ends[len(ends)-1-i]())
			}
			return strings.Join(said, "; ")
		}
	}}
	return []noise{
		vends, forks(),
		{"writes", func(t testing.TB, v *vcm, atMost time.Duration) func() string {
			return v.order(t, "scratch", nil, atMost)
		}},
		crowd,
		{"leases", func(t testing.TB, v *vcm, atMost time.Duration) func() string {
			return v.order(t, "lease", map[string]string{"tokens": "1000000"}, atMost)
		}},
		all,
	}
}

// forks is a fork bomb that burns.
func forks() noise {
	return noise{"forks", func(t testing.TB, v *vcm, atMost time.Duration) func() string {
		return v.order(t, "burn-forks", map[string]string{"threads": fmt.Sprint(manyThreads)}, atMost)
	}}
}

// order tells a VCM that was taken over what to do.
func (v *vcm) order(t testing.TB, attack string, args map[string]string, lasts time.Duration) (stop func() string) {
	t.Helper()
	said := map[string]string{"ms": fmt.Sprint(lasts.Milliseconds())}
	for k, a := range args {
		said[k] = a
	}
	line, err := json.Marshal(map[string]any{"attack": attack, "args": said})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", v.control)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	return func() string {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(lasts + 20*time.Second))
		answer, err := bufio.NewReader(c).ReadString('\n')
		if errors.Is(err, io.EOF) {
			return attack + ": the VCM ended"
		}
		var out struct{ Result, Detail string }
		if err == nil {
			err = json.Unmarshal([]byte(answer), &out)
		}
		if err != nil {
			t.Errorf("%s: %v", attack, err)
		}
		return fmt.Sprintf("%s: %s %s", attack, out.Result, out.Detail)
	}
}

// saturate has a process issue as much as the VCM can until stop is called.
func (v *vcm) saturate(t testing.TB) (stop func() vending.Report) {
	t.Helper()
	file, secret := v.rig.Mail("meters"), v.rig.Mail("password")
	var lines bytes.Buffer
	for _, m := range v.meters {
		fmt.Fprintf(&lines, `{"drn":%q,"ea":%d,"tct":%d,"sgc":%d,"krn":%d,"ti":%d,"ken":%d}`+"\n", m.Drn, m.Ea, m.Tct, m.Sgc, m.Krn, m.Ti, m.Ken)
	}
	for path, text := range map[string][]byte{file: lines.Bytes(), secret: []byte(password + "\n")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(binaries.Dir(t), "vend"), "load", "--address", v.server.Address, "--ca", v.ca, "--user", user,
		"--password-file", secret, "--meters", file, "--amount", "10", "--clients", fmt.Sprint(noisyClients), "--duration", "10m", "--json")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := neighbour.StartElsewhere(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	v.await(t, func(s *orchestrator.VcmStats) bool { return s.Connections >= noisyClients && s.Tokens > 100 })
	return func() vending.Report {
		t.Helper()
		err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait())
		var r vending.Report
		if e := json.Unmarshal(out.Bytes(), &r); e != nil {
			t.Fatalf("the load said %q and %q: %v, %v", out.String(), said.String(), err, e)
		}
		return r
	}
}
