package crash_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// impatient is a client that hangs up on many of its calls before the answer has
// come, and later asks what became of them.
type impatient struct {
	server         vending.Config
	user, password string
	books          *ledger

	client *vending.Client // nil without a connection
	hangUp context.CancelFunc
	token  string // of the last sign-in; it serves every connection
}

// settled is how long the server may still be at a call after its client has left.
const settled = 500 * time.Millisecond

// hangUp lets one impatient client vend to the accounts until the traffic ends.
func (f *traffic) hangUp(ctx context.Context, t *testing.T, v *rig.VCM, l *ledger, accounts []rig.Account) {
	t.Helper()
	server, err := v.Server()
	if err != nil {
		t.Fatal(err)
	}
	password, err := v.Password()
	if err != nil {
		t.Fatal(err)
	}
	c := &impatient{server: server, user: v.User, password: password, books: l}
	f.wg.Go(func() {
		defer c.leave()
		for i := 0; ctx.Err() == nil; i++ {
			c.vend(ctx, accounts[i%len(accounts)].Config)
		}
	})
}

// vend makes one call, and records it once its outcome is known.
func (c *impatient) vend(ctx context.Context, m *prismtoken1.MeterConfigIn) {
	if !c.connect(ctx) {
		return
	}
	call := vending.Call{Client: -1, MessageID: vending.MessageID(), DRN: m.Drn, Start: time.Now()}
	patience, cancel := context.WithTimeout(ctx, rand.N(6*time.Millisecond))
	stop := context.AfterFunc(patience, c.hangUp)
	tokens, err := c.client.API.IssueCreditToken(ctx, call.MessageID, c.token, m, 0, 1, 0, 0)
	if !stop() {
		c.leave()
	}
	cancel()
	switch code := vending.ErrorCode(err); {
	case err == nil:
		call.Tokens = tokens
	case code == "EAuthentication.Token":
		c.token = ""
		call.Code = code
	case code != "":
		call.Code, call.Error = code, err.Error()
	default:
		c.inquire(ctx, &call)
	}
	c.books.add(call)
}

// inquire asks what became of a call until somebody can tell.
func (c *impatient) inquire(ctx context.Context, call *vending.Call) {
	c.leave()
	time.Sleep(settled)
	call.Code = vending.Lost
	for ctx.Err() == nil {
		if !c.connect(ctx) {
			continue
		}
		tokens, err := c.client.API.FetchTokenResult_(ctx, vending.MessageID(), c.token, call.MessageID)
		switch code := vending.ErrorCode(err); {
		case err == nil:
			call.Code, call.Tokens, call.Fetched = "", tokens, true
			return
		case code == "EAuthentication.Token":
			c.token = ""
		case code != "":
			call.Code, call.Error = code, err.Error()
			return
		default:
			c.leave()
		}
	}
}

// connect makes sure of a connection and an access token, or fails after a moment.
func (c *impatient) connect(ctx context.Context) bool {
	var err error
	if c.client == nil {
		ctx, cancel := context.WithCancel(ctx)
		c.hangUp = cancel
		if c.client, err = vending.Dial(ctx, c.server); err != nil {
			cancel()
			c.client = nil
			time.Sleep(20 * time.Millisecond)
			return false
		}
	}
	if c.token != "" {
		return true
	}
	if err := c.client.SignIn(ctx, c.user, c.password); err != nil {
		c.leave()
		time.Sleep(20 * time.Millisecond)
		return false
	}
	c.token = c.client.Token
	return true
}

func (c *impatient) leave() {
	if c.client != nil {
		c.hangUp()
		_ = c.client.Close()
		c.client = nil
	}
}
