package neighbour_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
	"github.com/tesserae-hsm/tesserae/conformance/scale"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

const (
	password = "Battery-staple-2"
	user     = "vending"
)

// hostile are the programs of a platform whose VCMs can be taken over, made when
// first asked for.
type hostile struct {
	once sync.Once
	dir  string
	err  error

	rigs rigtest.Binaries
}

// New makes a rig of them.
func (h *hostile) New(t testing.TB) *rig.Rig {
	t.Helper()
	bin := binaries.Dir(t)
	h.once.Do(func() { h.err = h.build(t.Context(), bin) })
	if h.err != nil {
		t.Fatal(h.err)
	}
	t.Setenv(rigtest.EnvBin, h.dir)
	return h.rigs.New(t)
}

func (h *hostile) build(ctx context.Context, bin string) (err error) {
	if h.dir, err = os.MkdirTemp("", "tess-hostile-"); err != nil {
		return err
	}
	if err := os.Chmod(h.dir, 0o755); err != nil { // VCMs run as somebody else
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "hostile", "-o", h.dir+"/", "../../vcm/cmd/vcmd", "../../orchestrator/cmd/orchestratord", "./clients")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	entries, err := os.ReadDir(bin)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(bin, e.Name()), filepath.Join(h.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// clients is a client in a process of its own.
func (h *hostile) clients(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(h.dir, "clients"), args...)
}

// unit hosts the two VCMs.
type unit struct {
	t      testing.TB
	rig    *rig.Rig
	direct *rig.Direct
	// without are layers that its VCMs lack.
	without []string
}

func newUnit(t testing.TB, without ...string) *unit {
	t.Helper()
	r, ctx := taken.New(t), t.Context()
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
	return &unit{t: t, rig: r, direct: d, without: without}
}

// vcm is one that vends.
type vcm struct {
	*unit
	uuid    string
	control string // the port that obeys the attacker
	server  vending.Config
	ca      string
	meters  []*prismtoken1.MeterConfigIn
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
	control := ""
	for _, e := range made.Vcm.Endpoints {
		if e.ServiceName == "smapi" {
			control = e.Address
		}
	}
	if len(u.without) > 0 {
		if err := os.WriteFile(u.rig.Path("platform", "vcms", made.Vcm.Uuid, ".without"), []byte(strings.Join(u.without, "\n")), 0o644); err != nil {
			return nil, err
		}
	}
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
	v := &vcm{unit: u, uuid: made.Vcm.Uuid, control: control, ca: u.rig.Mail(name + ".pem"),
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

func (v *vcm) await(t testing.TB, ok func(*orchestrator.VcmStats) bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(v.stats(v.uuid)); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no load: %+v", v.stats(v.uuid))
		}
	}
}
