package neighbour_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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

func (v *vcm) noise(t *testing.T, what string) (stop func() string) {
	switch what {
	case "none":
		return func() string { return "" }
	case "vends":
		end := v.saturate(t)
		return func() string {
			r := end()
			return fmt.Sprintf("%d tokens, %d refusals in %.1f s %v", r.Tokens, r.Errors, r.Seconds, r.Codes)
		}
	case "burn", "burnless":
		threads := "200"
		if what == "burnless" {
			threads = "120"
		}
		return v.order(t, "burn-forks", map[string]any{"threads": threads})
	case "scratch", "lease":
		return v.order(t, what, map[string]any{"tokens": "1000"})
	case "connections":
		cmd := self(fmt.Sprintf("%s=%s %d", envHold, v.server.Address, 10000))
		h, held, err := neighbour.StartHolder(cmd)
		if err != nil {
			t.Fatal(err)
		}
		return func() string {
			now, opened, err := h.End()
			if err != nil {
				t.Error(err)
			}
			return fmt.Sprintf("held %d, %d at the end, opened %d", held, now, opened)
		}
	case "all":
		var stops []func() string
		for _, w := range []string{"vends", "connections", "burnless", "scratch"} {
			stops = append(stops, v.noise(t, w))
		}
		return func() string {
			s := ""
			for i := len(stops) - 1; i >= 0; i-- {
				s += stops[i]() + "; "
			}
			return s
		}
	}
	t.Fatal(what)
	return nil
}

func (v *vcm) order(t *testing.T, attack string, args map[string]any) (stop func() string) {
	args["ms"] = fmt.Sprint((*lasts + 600*time.Millisecond).Milliseconds())
	c, err := net.Dial("tcp", v.control)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := json.Marshal(map[string]any{"attack": attack, "args": args})
	if _, err := c.Write(append(p, '\n')); err != nil {
		t.Fatal(err)
	}
	return func() string {
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		answer, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(answer)
	}
}

// saturate has a process, because vending systems run elsewhere, issue as much as the VCM can until stop is called.
func (v *vcm) saturate(t *testing.T) (stop func() vending.Report) {
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
		"--password-file", secret, "--meters", file, "--amount", "10", "--clients", fmt.Sprint(noisyClients), "--duration", (3*time.Minute + 4**lasts).String(), "--json")
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
