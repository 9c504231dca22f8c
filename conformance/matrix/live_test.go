package matrix_test

import (
	"context"
	"os"
	"strconv"
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
	var groups []rig.SupplyGroup
	for _, g := range matrix.Groups() {
		flags := []string{"--ktc", g.KTC, "--sbm", g.SBM}
		if g.ULM > 0 {
			flags = append(flags, "--ulm", strconv.FormatUint(uint64(g.ULM), 10))
		}
		groups = append(groups, rig.SupplyGroup{SGC: g.SGC, DKG: "04", Name: "Group " + g.SGC, Flags: flags})
	}
	r, v := binaries.Full(t, rig.Plan{Name: "matrix", Groups: groups})
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
		User: signIn(matrix.UserName), Bare: signIn("bare"), Expired: expired, Foreign: stranger.Token, Password: password,
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
}
