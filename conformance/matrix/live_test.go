package matrix_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/conformance/matrix"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/rig/rigtest"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
)

var binaries rigtest.Binaries

func TestMain(m *testing.M) { os.Exit(binaries.Main(m)) }

// TestLiveVCM runs the matrix against the real processes, with a token of another
// tenant's VCM and one that has really expired.
func TestLiveVCM(t *testing.T) {
	t.Parallel()
	for name, testMode := range map[string]bool{"vending": false, "CTS mode": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			live(t, testMode)
		})
	}
}

func live(t *testing.T, testMode bool) {
	var groups []rig.SupplyGroup
	for _, g := range matrix.Groups() {
		flags := []string{"--ktc", g.KTC, "--sbm", g.SBM}
		if g.ULM > 0 {
			flags = append(flags, "--ulm", strconv.FormatUint(uint64(g.ULM), 10))
		}
		groups = append(groups, rig.SupplyGroup{SGC: g.SGC, DKG: "04", Name: "Group " + g.SGC, Flags: flags})
	}
	r := binaries.New(t)
	if testMode {
		r.UnitFlags = []string{"--cts"}
	}
	v, err := r.Full(t.Context(), rig.Plan{Name: "matrix", Groups: groups})
	if err != nil {
		t.Fatal(err)
	}
	const password = "Battery-staple-2"
	tool := func(args ...string) {
		t.Helper()
		if _, err := r.Run(t.Context(), rig.Tenant, "ptokenadmin", args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, u := range [][]string{
		{matrix.UserName, "ptoken-api", "ptoken-issue-any", "ptoken-operator"}, {"bare", "ptoken-api"},
		{"other", "ptoken-api", "ptoken-issue-any"}, {matrix.OperatorName, "ptoken-operator"},
	} {
		args := []string{"user", "create", "--password-file", v.Secret}
		for _, role := range u[1:] {
			args = append(args, "--role", role)
		}
		tool(append(args, u[0])...)
	}
	// Every wrong password here is meant; none may lock the user.
	tool("pref", "set", "account.lockout.threshold", "1000")
	tool("pref", "set", "account.address.failures.per.minute", "1000")

	_, elsewhere := binaries.Full(t, rig.Plan{Name: "elsewhere", Groups: groups[:1]})
	stranger, err := elsewhere.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	server, err := v.Server()
	if err != nil {
		t.Fatal(err)
	}
	c, err := vending.Dial(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	signIn := func(user string) string {
		t.Helper()
		if err := c.SignIn(t.Context(), user, password); err != nil {
			t.Fatal(err)
		}
		return c.Token
	}
	tool("pref", "set", "ptoken.sessionTimeoutSec", "10")
	expired, at := signIn(matrix.UserName), time.Now()
	tool("pref", "set", "ptoken.sessionTimeoutSec", "300")
	target := &matrix.Target{
		Call: func(ctx context.Context, method string, args, result thrift.TStruct) error {
			_, err := c.API.Client_().Call(ctx, method, args, result)
			return err
		},
		User: signIn(matrix.UserName), Bare: signIn("bare"), Expired: expired, Foreign: stranger.Token, Password: password, TestMode: testMode,
	}
	issued, err := c.API.IssueCreditToken(t.Context(), matrix.OthersMessage, signIn("other"), matrix.ValidMeter(), 0, 1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	target.Token = issued[0].TokenDec
	time.Sleep(time.Until(at.Add(11 * time.Second)))
	calls, bad := matrix.Run(t.Context(), target)
	for _, what := range bad {
		t.Error(what)
	}
	t.Logf("%d calls", calls)
	status(t, c, target.User)
	if testMode {
		resets(t, r)
	}
}

// resets looks for the entry of a reset of identifiers in the log.
func resets(t *testing.T, r *rig.Rig) {
	t.Helper()
	dir := r.Mail("log")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(t.Context(), rig.Tenant, "hsmadmin", "vcm", "logs", "export", "--outdir", dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	said, err := r.Run(t.Context(), rig.Tenant, "hsmadmin", "vcm", "logs", "verify", "--print", files[0])
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, " tid.reset local:any 6007* message=m-1 meters=1") {
		t.Errorf("the log does not tell that identifiers were reset:\n%s", said)
	}
}

// status looks for each key that a live server of the product gives; those about
// the date when vending ends come with a licence that names one.
func status(t *testing.T, c *vending.Client, token string) {
	t.Helper()
	counter := func() int {
		t.Helper()
		got, err := c.API.GetStatus(t.Context(), "status", token)
		if err != nil || len(got) != 1 {
			t.Fatalf("%v, %v", got, err)
		}
		for _, name := range []string{
			"ApiType", "Counter", "FirmwareId", "HardwareId", "ModuleId", "SerialNumber", "TxCounter", "port.Class", "port.Logical", "port.Physical", "port.Uri",
			"smcq.Nonce", "smpd.AcMode", "smpd.CertMode", "smpd.FwApi", "smpd.FwBinary", "smpd.FwVer", "smpd.HwFamily", "smpd.Tps", "smqd.WindowSize",
			"smqd.ex.RtcDriftSeconds", "smqd.ex.RtcTimeLocal", "smqd.ex.RtcTimeUtc", "smqi.FirmwareHashHex", "smqi.IdSm", "smud.Uid",
		} {
			if got[0].Info[name] == "" {
				t.Errorf("the status has no %s", name)
			}
		}
		if tps, err := strconv.Atoi(got[0].Info["smpd.Tps"]); err != nil || tps < 1 {
			t.Errorf("smpd.Tps is %q", got[0].Info["smpd.Tps"])
		}
		n, err := strconv.Atoi(got[0].Info["Counter"])
		if err != nil {
			t.Error(err)
		}
		return n
	}
	before := counter()
	if _, err := c.API.IssueCreditToken(t.Context(), "counted", token, matrix.ValidMeter(), 0, 1, 0, 0); err != nil {
		t.Fatal(err)
	}
	if after := counter(); after <= before {
		t.Errorf("the counter of operations went from %d to %d", before, after)
	}
}
