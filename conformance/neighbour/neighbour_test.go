package neighbour_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/neighbour"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
	"github.com/tesserae-hsm/tesserae/conformance/scale"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

var (
	idle     = flag.Int("idle", 2000, "idle connections to the noisy VCM; 10000 in a long run")
	lasts    = flag.Duration("lasts", 3*time.Second, "how long each measurement lasts")
	binaries rigtest.Binaries
)

func TestMain(m *testing.M) {
	if what := os.Getenv(envHold); what != "" {
		if err := hold(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(binaries.Main(m))
}

const (
	noisyClients = 64
	noisyMeters  = 2000
	password     = "Battery-staple-2"
	user         = "vending"
)

// TestNeighbour gives one VCM more and more to do: 64 vending clients, which fill
// its disk, then go on being refused, beside idle connections. A client of another
// VCM meets no error, and waits not much longer than before.
func TestNeighbour(t *testing.T) {
	r := binaries.New(t)
	u := newUnit(t, r)
	quiet, noisy := u.vcm("quiet"), u.vcm("noisy")
	till := quiet.till(t)
	vend := func(what string, lasts time.Duration) neighbour.Latency {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), lasts)
		defer cancel()
		l, err := till.Vend(ctx)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%-36s %s", what, l)
		return l
	}
	vend("warming up", *lasts/4)
	alone := vend("alone", *lasts)
	beside := func(what string, lasts time.Duration) {
		t.Helper()
		l := vend("beside "+what, lasts)
		t.Logf("%36s p99 ratio %.2f (budget 2), p50 ratio %.2f", "", l.Over(alone), float64(l.P50)/float64(alone.P50))
		if l.Beyond(alone) {
			t.Errorf("beside %s p99 is %.1f times that without", what, l.Over(alone))
		}
	}

	stop := noisy.saturate(t)
	beside("64 clients", *lasts/2)
	noisy.await(t, func(s *orchestrator.VcmStats) bool { return s.Disk > s.DiskQuota*9/10 })
	beside("64 clients and a full disk", *lasts)
	holder, held, err := neighbour.StartHolder(holderCommand(t, noisy.server.Address, *idle))
	if err != nil {
		t.Fatal(err)
	}
	beside(fmt.Sprintf("these and %d connections", held), *lasts)
	connections, opened, err := holder.End()
	if err != nil {
		t.Error(err)
	}
	noise := stop()
	stats := u.stats(noisy.uuid)
	t.Logf("the noise: %d clients, %d tokens, %d refusals %v in %.1f s; %d connections held in the end, %d opened; disk %d of %d bytes",
		noise.Clients, noise.Tokens, noise.Errors, noise.Codes, noise.Seconds, connections, opened, stats.Disk, stats.DiskQuota)
	if noise.Calls < 1000 || held == 0 {
		t.Error("that was no noise")
	}
}

// envHold makes this program one that holds connections.
const envHold = "TESSERAE_HOLD_CONNECTIONS"

func holderCommand(t *testing.T, address string, n int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{fmt.Sprintf("%s=%s %d", envHold, address, n)}
	return cmd
}

func hold(what string) error {
	var address string
	var n int
	if _, err := fmt.Sscan(what, &address, &n); err != nil {
		return err
	}
	return neighbour.Hold(address, n, os.Stdin, os.Stdout)
}

// unit hosts the two VCMs.
type unit struct {
	t      *testing.T
	rig    *rig.Rig
	direct *rig.Direct
}

func newUnit(t *testing.T, r *rig.Rig) *unit {
	t.Helper()
	ctx := t.Context()
	steps := []func() error{
		func() error { return r.Maker(ctx) },
		func() error { _, _, err := r.Unit(ctx); return err },
		func() error { return r.EnrolProvider(ctx) },
		func() error { return r.Licence(ctx, "speed", "HSMSpeed2") },
		func() error { return r.Licence(ctx, "max-active-vcms", "2") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	d, err := r.Direct(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &unit{t: t, rig: r, direct: d}
}

// vcm is one that vends.
type vcm struct {
	*unit
	uuid   string
	server vending.Config
	ca     string
	meters []*prismtoken1.MeterConfigIn
}

// vcm makes one, starts it, and has its tenant load a key and make an API user.
func (u *unit) vcm(name string) *vcm {
	u.t.Helper()
	v, err := u.makeVCM(u.t.Context(), name)
	if err != nil {
		u.t.Fatal(err)
	}
	return v
}

func (u *unit) makeVCM(ctx context.Context, name string) (*vcm, error) {
	h, err := u.direct.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	tenant, err := scale.NewTenant(name)
	if err != nil {
		return nil, err
	}
	file, err := tenant.Request()
	if err != nil {
		return nil, err
	}
	made, err := h.Create(ctx, file, &orchestrator.CreateChoices{Name: name})
	if err != nil {
		return nil, err
	}
	tenant.Got(made.Vcm)
	if _, err := h.Start(ctx, made.Vcm.Uuid, nil, 60); err != nil {
		return nil, err
	}
	unitKey, err := u.rig.UnitKey()
	if err != nil {
		return nil, err
	}
	centre, err := scale.NewCentre(u.rig.Path("kmc", name))
	if err != nil {
		return nil, err
	}
	s, api, err := tenant.Possess(ctx, unitKey, centre)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if _, err := api.UserCreate(ctx, user, []string{"ptoken-api", "ptoken-issue-any"}, password, 0); err != nil {
		return nil, err
	}
	endpoint, err := api.TokenEndpoint(ctx)
	if err != nil {
		return nil, err
	}
	trust, err := vending.ParseTrust([]byte(endpoint.CertificatePem), time.Now)
	if err != nil {
		return nil, err
	}
	v := &vcm{unit: u, uuid: made.Vcm.Uuid, ca: u.rig.Mail(name + ".pem"),
		server: vending.Config{Address: endpoint.Address, Trust: trust, Timeout: 20 * time.Second}}
	if v.meters, err = meters(noisyMeters); err != nil {
		return nil, err
	}
	return v, os.WriteFile(v.ca, []byte(endpoint.CertificatePem), 0o600)
}

// meters are n meters of the tenants' supply group: a token's time must not
// repeat within a meter, so few of them would run out of minutes.
func meters(n int) ([]*prismtoken1.MeterConfigIn, error) {
	out := make([]*prismtoken1.MeterConfigIn, 0, n)
	for i := 1; len(out) < n; i++ {
		for check := range 10 {
			pan, err := sts.ParsePAN(fmt.Sprintf("01%08d%d", i, check))
			if err != nil {
				continue
			}
			c := prismtoken1.NewMeterConfigIn()
			c.Drn, c.Ea, c.Tct, c.Sgc, c.Krn, c.Ti, c.Ken = pan.DRN(), 11, 2, scale.SGC, 1, 1, 255
			out = append(out, c)
			break
		}
		if i > 2*n {
			return nil, fmt.Errorf("%d of %d meter numbers are valid", len(out), n)
		}
	}
	return out, nil
}

// till signs in to the VCM.
func (v *vcm) till(t *testing.T) *neighbour.Till {
	t.Helper()
	c, err := vending.Dial(t.Context(), v.server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SignIn(t.Context(), user, password); err != nil {
		t.Fatal(err)
	}
	return &neighbour.Till{Client: c, Meters: v.meters}
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

// stats are the provider's figures of a VCM.
func (u *unit) stats(uuid string) *orchestrator.VcmStats {
	u.t.Helper()
	h, err := u.direct.Dial(u.t.Context())
	if err != nil {
		u.t.Fatal(err)
	}
	defer h.Close()
	all, err := h.Stats(u.t.Context(), uuid)
	if err != nil || len(all) != 1 {
		u.t.Fatalf("%d: %v", len(all), err)
	}
	return all[0]
}

func (v *vcm) await(t *testing.T, ok func(*orchestrator.VcmStats) bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(v.stats(v.uuid)); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no load: %+v", v.stats(v.uuid))
		}
	}
}
