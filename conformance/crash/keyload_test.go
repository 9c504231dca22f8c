package crash_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

const (
	centreName = "TEST-KMC"
	loadKeys   = 150

	exitRefused     = 3
	exitUnavailable = 5
)

// TestKeyLoadGoesOn kills the daemons while a tenant asks for keys, hands over the
// key load file and loads it, again and again. The tenant repeats what failed
// because nobody answered; nothing else is done to go on.
func TestKeyLoadGoesOn(t *testing.T) {
	t.Parallel()
	rnd := random(t)
	r := binaries.New(t)
	v, err := r.Hosted(t.Context(), rig.Plan{Name: "loading", Request: []string{"--autostart"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{
		func() error { return r.Enrol(t.Context(), v) },
		func() error { return r.Users(t.Context(), v) },
		func() error {
			return r.KMC(t.Context(), rig.SupplyGroup{SGC: openGroup, DKG: "04", Name: "First", Flags: []string{"--ulm", "100"}})
		},
		func() error { return manyGroups(r, loadKeys) },
		func() error { return r.KeyRequest(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	module, err := r.Module()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(t.Context(), rig.KMC, "kmc", "authorise", "--dir", r.Path("kmc", "centre"), "--module", module, "--all"); err != nil {
		t.Fatal(err)
	}

	done, ended := make(chan struct{}), make(chan error, 1)
	l := &loader{r: r}
	go func() {
		for {
			select {
			case <-done:
				ended <- nil
				return
			default:
			}
			if err := l.cycle(t); err != nil {
				ended <- err
				return
			}
		}
	}()
	k := &killer{t: t, r: r, rnd: rnd}
	for _, victim := range schedule(rnd, *kills, hsmd, orchestratord, vcmd) {
		k.pause(1500 * time.Millisecond)
		if len(ended) > 0 {
			break
		}
		k.kill(victim)
	}
	close(done)
	failure := <-ended
	if failure == nil { // with nobody in the way
		failure = l.cycle(t)
	}
	if failure != nil {
		t.Fatal(failure)
	}
	t.Logf("%d key loads of %d keys, %d steps repeated after a crash", l.cycles, loadKeys, l.repeated)
	vendOnce(t, r, v)
}

// manyGroups gives the centre supply groups like its first one, n in all.
func manyGroups(r *rig.Rig, n int) error {
	centre, err := kmc.Open(r.Path("kmc", "centre"), rand.Reader)
	if err != nil {
		return err
	}
	first := centre.Groups()[0]
	var more []kmc.Group
	for i := 1; i < n; i++ {
		g := first
		g.SGC, g.Key = 200000+i, ""
		more = append(more, g)
	}
	return centre.AddGroups(more)
}

// loader is the tenant and the KMC.
type loader struct {
	r        *rig.Rig
	cycles   int
	repeated int
	tvp      string // of the newest request
}

// slot is what 'ptokenadmin kmc list' says.
type slot struct {
	KMC                string `json:"kmc"`
	State              string `json:"state"`
	RequestOutstanding bool   `json:"request_outstanding"`
	TVP                string `json:"tvp"`
	Loaded             int    `json:"registers_loaded"`
	InKLF              int    `json:"keys_in_klf"`
}

// step does one command until it is answered. A command that was refused after
// nobody answered may have been done already: done tells by the slot.
func (l *loader) step(t *testing.T, done func(slot) bool, args ...string) error {
	return l.tool(t, done, "ptokenadmin", args...)
}

func (l *loader) tool(t *testing.T, done func(slot) bool, name string, args ...string) error {
	asked := false
	for end := time.Now().Add(recovery); ; time.Sleep(50 * time.Millisecond) {
		out, err := l.r.Try(t.Context(), rig.Tenant, name, args...)
		if err != nil {
			return err
		}
		switch {
		case out.Code == 0:
			return nil
		case out.Code == exitUnavailable && time.Now().Before(end):
			asked = true
			l.repeated++
			continue
		case out.Code == exitRefused && asked && done != nil:
			s, err := l.slot(t)
			if err == nil && done(s) {
				return nil
			}
		}
		return fmt.Errorf("%s %s ended with %d: %s", name, strings.Join(args, " "), out.Code, out.All)
	}
}

// expire makes room in the log, as the tenant has to from time to time.
func (l *loader) expire(t *testing.T) error {
	dir, err := os.MkdirTemp(l.r.Mail(""), "log-")
	if err != nil {
		return err
	}
	return l.tool(t, nil, "hsmadmin", "vcm", "logs", "export", "--saved", "--expire", "--force", "--outdir", dir)
}

func (l *loader) slot(t *testing.T) (slot, error) {
	for end := time.Now().Add(recovery); ; time.Sleep(50 * time.Millisecond) {
		out, err := l.r.Try(t.Context(), rig.Tenant, "ptokenadmin", "kmc", "list", "--json")
		if err != nil {
			return slot{}, err
		}
		if out.Code == exitUnavailable && time.Now().Before(end) {
			continue
		}
		var slots []slot
		if err := json.Unmarshal([]byte(out.Stdout), &slots); err != nil || len(slots) != 1 {
			return slot{}, fmt.Errorf("ptokenadmin kmc list ended with %d: %s", out.Code, out.All)
		}
		return slots[0], nil
	}
}

// cycle is one key load from the request to the end of the session.
func (l *loader) cycle(t *testing.T) error {
	request, klf := l.r.Mail("request.txt"), l.r.Mail("answer.klf")
	if err := l.step(t, nil, "kmc", "generate-request", "--force", "--out", request, centreName); err != nil {
		return err
	}
	if err := l.newer(request); err != nil {
		return err
	}
	if _, err := l.r.Run(t.Context(), rig.KMC, "kmc", "answer", "--dir", l.r.Path("kmc", "centre"), "--request", request, "--out", klf); err != nil {
		return err
	}
	taken := func(s slot) bool { return s.State == "LOADING" && s.InKLF == loadKeys && !s.RequestOutstanding }
	if err := l.step(t, taken, "kmc", "upload-klf", klf); err != nil {
		return err
	}
	if err := l.step(t, nil, "kmc", "load-all", centreName); err != nil {
		return err
	}
	ended := func(s slot) bool { return s.State == "ACTIVE" }
	if err := l.step(t, ended, "kmc", "end-session", centreName); err != nil {
		return err
	}
	s, err := l.slot(t)
	switch {
	case err != nil:
		return err
	case s.State != "ACTIVE" || s.Loaded != loadKeys || s.InKLF != loadKeys:
		return fmt.Errorf("after a key load the slot is %+v", s)
	}
	if l.cycles++; l.cycles%20 == 0 {
		return l.expire(t)
	}
	return nil
}

// newer checks that no request has the time of an earlier one.
func (l *loader) newer(request string) error {
	p, err := os.ReadFile(request)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(p), ";TVP")
	tvp, _, found := strings.Cut(rest, ";")
	if !found || tvp <= l.tvp {
		return fmt.Errorf("a request of TVP %s follows one of %s", tvp, l.tvp)
	}
	l.tvp = tvp
	return nil
}

// vendOnce checks the loaded keys against the centre's, by what they vend.
func vendOnce(t *testing.T, r *rig.Rig, v *rig.VCM) {
	t.Helper()
	c, err := v.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for i, sgc := range []string{openGroup, "200001", fmt.Sprint(200000 + loadKeys - 1)} {
		accounts, err := r.Accounts(sgc, 1+i, 1)
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := c.API.IssueCreditToken(t.Context(), fmt.Sprint("once-", i), c.Token, accounts[0].Config, 0, 10, 0, 0)
		if err != nil {
			t.Fatalf("supply group %s: %v", sgc, err)
		}
		if res, err := accounts[0].Meter.Enter(tokens[0].TokenDec, time.Now()); err != nil || !res.Accepted {
			t.Errorf("supply group %s: %s, %v", sgc, res, err)
		}
		if left := unitsLeft(t, r, sgc); left != 90 {
			t.Errorf("supply group %s has %d units left of 100 after a token of 10", sgc, left)
		}
	}
}
