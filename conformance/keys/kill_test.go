package keys_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

const (
	otherCentre = "OTHER-KMC"
	otherKeys   = 40
	portion     = 102 // units of each token, H0066
	recovery    = 60 * time.Second
)

// TestKilledWhileLoadingAndVending kills the module's process while one client
// vends through the low-level API under a limit and a licence, and the tenant
// loads the keys of another KMC again and again. The module comes back each time;
// no limit is exceeded and no counter goes back.
func TestKilledWhileLoadingAndVending(t *testing.T) {
	t.Parallel()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("to repeat: -keys.seed=%d -keys.kills=%d", s, *kills)
	rnd := rand.New(rand.NewPCG(s, 0))

	granted := 300 * *kills * portion
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "Limited", Flags: []string{"--ulm", strconv.Itoa(granted)}}})
	p.load()
	p.secondCentre()
	v := &vendor{t: t, address: p.endpoint("smapi"), granted: granted, left: 1 << 62, ulm: granted}
	v.connect()
	nonce := v.client.must(4, "CQ")[2]
	p.tenant("license", "load", p.licence("licence.txt", "keys", nonce, "--transactions", "1000000"))
	v.left = 1000000

	done := make(chan struct{})
	var wg sync.WaitGroup
	l := &loader{p: p}
	wg.Go(func() { v.run(done) })
	wg.Go(func() { l.run(done) })
	for i := range *kills {
		before := v.connected.Load()
		time.Sleep(time.Duration(rnd.Int64N(int64(time.Second))))
		p.killVCM()
		if rnd.IntN(4) > 0 { // else the next kill comes before this one is overcome
			v.await(before)
		}
		if i%20 == 19 {
			v.await(before)
			p.exportLog()
		}
	}
	close(done)
	wg.Wait()
	if t.Failed() {
		return
	}
	if err := l.cycle(); err != nil { // with nobody in the way
		t.Fatal(err)
	}
	if n := len(p.keys()); n != otherKeys+1 {
		t.Errorf("%d keys are in the module, not %d", n, otherKeys+1)
	}
	v.exhaust(p.exportLog)
	t.Logf("%d kills: %d tokens, %d commands without an answer, %d key loads of %d keys, %d interrupted; %d of %d units left, %d of 1000000 transactions",
		*kills, v.tokens, v.lost, l.cycles, otherKeys, l.interrupted, v.ulm, granted, v.left)
	if v.tokens == 0 || l.cycles == 0 {
		t.Error("nothing was done between the kills")
	}
}

func (p *platform) killVCM() {
	p.t.Helper()
	for end := time.Now().Add(recovery); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, child := range p.VCMs() {
			if child.Kill() == nil {
				return
			}
		}
	}
	p.t.Errorf("no process of a VCM within %s", recovery)
}

// exportLog takes the audit log away, as a tenant has to now and then: the VCM's
// disk is small.
func (p *platform) exportLog() {
	p.t.Helper()
	dir, err := os.MkdirTemp(p.Mail(""), "log-")
	if err != nil {
		p.t.Error(err)
		return
	}
	for end := time.Now().Add(recovery); ; time.Sleep(50 * time.Millisecond) {
		_, err := p.Run(p.t.Context(), rig.Tenant, "hsmadmin", "vcm", "logs", "export", "--outdir", dir, "--expire")
		if err == nil {
			return
		}
		if time.Now().After(end) {
			p.t.Error(err)
			return
		}
	}
}

// secondCentre makes another KMC with keys of its own, which the VCM knows.
func (p *platform) secondCentre() {
	p.t.Helper()
	other := func(verb string, args ...string) {
		words := append(strings.Fields(verb), "--dir", p.Path("kmc", "other"))
		p.must(rig.KMC, "kmc", append(words, args...)...)
	}
	other("init", "--name", otherCentre)
	for i := range otherKeys {
		other("sgc add", "--sgc", strconv.Itoa(300000+i), "--bdt", "2014", "--dkg", "04")
	}
	other("module add", "--file", p.Mail("module.pub"))
	other("authorise", "--module", p.module(), "--all")
	other("pubkey", "--out", p.Mail("other.pub"))
	p.tenant("kmc", "upload-key", p.Mail("other.pub"))
}

// vendor vends through the low-level API and keeps books.
type vendor struct {
	t       *testing.T
	address string
	client  *client
	granted int

	tokens, lost int
	left, ulm    int // as the module said last
	connected    atomic.Int64
}

// await waits until the vendor has connected again since before.
func (v *vendor) await(before int64) {
	for end := time.Now().Add(recovery); v.connected.Load() == before && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

// connect connects to a module that works.
func (v *vendor) connect() {
	v.t.Helper()
	for end := time.Now().Add(recovery); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", v.address, time.Second)
		if err != nil {
			continue
		}
		v.client = &client{v.t, conn}
		if status, _, err := v.client.ask("DI"); err == nil && status == "00" {
			v.connected.Add(1)
			return
		}
		_ = conn.Close()
	}
	v.t.Errorf("the module does not come back within %s", recovery)
}

// run vends until done; after each interruption it looks at the counters.
func (v *vendor) run(done <-chan struct{}) {
	const pan = "600727000000000009"
	for !v.t.Failed() {
		select {
		case <-done:
			return
		default:
		}
		status, _, err := v.client.ask("VC", credit(1, pan, 1, tidAt(time.Now()))...)
		switch {
		case err != nil:
			v.lost++
			_ = v.client.stream.Close()
			v.connect()
			v.check()
		case status == "31":
			time.Sleep(10 * time.Millisecond)
		case status != "00":
			v.t.Errorf("SM?VC is answered %s", status)
		default:
			v.tokens++
			time.Sleep(2 * time.Millisecond) // the limit shall last
		}
	}
}

// exhaust vends until the limit is used up, to the last unit. The log grows
// meanwhile.
func (v *vendor) exhaust(export func()) {
	v.t.Helper()
	const pan = "600727000000000009"
	// The last kill may have come after the last command.
	_ = v.client.stream.Close()
	v.connect()
	for {
		status, _ := v.client.call("VC", credit(1, pan, 1, tidAt(time.Now()))...)
		if status == "31" {
			break
		}
		if status != "00" {
			v.t.Fatalf("SM?VC is answered %s", status)
		}
		if v.tokens++; v.tokens%20000 == 0 {
			export()
		}
	}
	v.check()
	if v.ulm != 0 {
		v.t.Errorf("the limit is used up and %d units are left", v.ulm)
	}
}

// check compares the module's counters with the books: they never go back, all
// that was answered is counted, and nothing but what was asked for.
func (v *vendor) check() {
	v.t.Helper()
	for end := time.Now().Add(recovery); ; {
		left, ulm, err := v.counters()
		if err != nil {
			if time.Now().After(end) {
				v.t.Errorf("the counters cannot be read: %v", err)
				return
			}
			_ = v.client.stream.Close()
			v.connect()
			continue
		}
		if left > v.left || ulm > v.ulm {
			v.t.Errorf("transactions left went from %d to %d, units left from %d to %d", v.left, left, v.ulm, ulm)
		}
		v.left, v.ulm = left, ulm
		used, spent := 1000000-left, (v.granted-ulm)/portion
		if least, most := v.tokens, v.tokens+v.lost; used < least || used > most || spent != used || ulm < 0 {
			v.t.Errorf("%d tokens came and %d may have been lost; the licence counts %d, the limit %d", v.tokens, v.lost, used, spent)
		}
		return
	}
}

func (v *vendor) counters() (left, ulm int, err error) {
	status, f, err := v.client.ask("CQ")
	if err != nil || status != "00" {
		return 0, 0, fmt.Errorf("CQ: %s, %w", status, err)
	}
	if left, err = strconv.Atoi(f[0]); err != nil {
		return 0, 0, err
	}
	status, f, err = v.client.ask("GA", "N1")
	if err != nil || status != "00" {
		return 0, 0, fmt.Errorf("GA: %s, %w", status, err)
	}
	for attribute := range strings.SplitSeq(f[0], ";") {
		if hex, ok := strings.CutPrefix(attribute, "ULM"); ok {
			n, err := strconv.ParseUint(hex, 16, 32)
			return left, int(n), err
		}
	}
	return 0, 0, fmt.Errorf("GA shows no ULM: %q", f[0])
}

// loader is the tenant who loads the other KMC's keys. What was interrupted he
// begins again from the request.
type loader struct {
	p                   *platform
	cycles, interrupted int
}

func (l *loader) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		if l.cycle() != nil {
			l.interrupted++
		}
	}
}

func (l *loader) cycle() error {
	request, klf := l.p.Mail("other.req"), l.p.Mail("other.klf")
	ctx := l.p.t.Context()
	if err := os.Remove(klf); err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, s := range []struct {
		role rig.Role
		tool string
		args []string
	}{
		{rig.Tenant, "ptokenadmin", []string{"kmc", "generate-request", "--force", "--out", request, otherCentre}},
		{rig.KMC, "kmc", []string{"answer", "--dir", l.p.Path("kmc", "other"), "--request", request, "--out", klf}},
		{rig.Tenant, "ptokenadmin", []string{"kmc", "upload-klf", klf}},
		{rig.Tenant, "ptokenadmin", []string{"kmc", "load-all", otherCentre}},
		{rig.Tenant, "ptokenadmin", []string{"kmc", "end-session", "--yes", otherCentre}},
	} {
		if _, err := l.p.Run(ctx, s.role, s.tool, s.args...); err != nil {
			return err
		}
	}
	l.cycles++
	return nil
}
