package crash_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// ledger is what the vending system knows: every call and what became of it.
type ledger struct {
	mu    sync.Mutex
	calls []vending.Call
}

func (l *ledger) add(c vending.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, c)
}

// since reports whether a call that began after that time was answered with tokens.
func (l *ledger) since(at time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.calls) - 1; i >= 0 && i >= len(l.calls)-200; i-- {
		if c := l.calls[i]; c.Start.After(at) && !c.Fetched && len(c.Tokens) > 0 {
			return true
		}
	}
	return false
}

// tokens counts the tokens.
func (l *ledger) tokens() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		n += len(c.Tokens)
	}
	return n
}

// last is the newest token.
func (l *ledger) last() *prismtoken1.Token {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range slices.Backward(l.calls) {
		if len(c.Tokens) > 0 {
			return c.Tokens[0]
		}
	}
	return &prismtoken1.Token{}
}

// traffic is vending by many clients until it is ended.
type traffic struct {
	cancel context.CancelFunc
	rush   atomic.Bool // nobody pauses between calls
	wg     sync.WaitGroup
	mu     sync.Mutex
	errs   []error
}

// vend lets clients vend amount to the accounts in turn, with a pause between
// any two calls except in a rush, and records everything. A broken connection may
// leave a call behind at the server for as long as settle.
func (f *traffic) vend(ctx context.Context, t *testing.T, v *rig.VCM, l *ledger, accounts []rig.Account, clients int, amount float64, pace, settle time.Duration) {
	t.Helper()
	server, err := v.Server()
	if err != nil {
		t.Fatal(err)
	}
	password, err := v.Password()
	if err != nil {
		t.Fatal(err)
	}
	owed := time.Duration(0) // a sleep lasts for a millisecond at least
	load := vending.Load{
		Server: server, User: v.User, Password: password, Amount: amount, Clients: clients, OneSession: true, Settle: settle,
		Duration: 24 * time.Hour, Recover: 2 * recovery,
		Record: func(c vending.Call) error {
			l.add(c)
			if owed += pace; owed < time.Millisecond {
				return nil
			}
			for end := time.Now().Add(owed); !f.rush.Load() && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			owed = 0
			return nil
		},
	}
	for _, a := range accounts {
		load.Meters = append(load.Meters, a.Config)
	}
	f.wg.Go(func() {
		_, err := load.Run(ctx)
		if err != nil && ctx.Err() == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.errs = append(f.errs, err)
		}
	})
}

// end stops the clients; calls in progress lose their answers.
func (f *traffic) end() error {
	f.cancel()
	f.wg.Wait()
	return errors.Join(f.errs...)
}

// settle asks for the answers that were lost at the end.
func (l *ledger) settle(t *testing.T, v *rig.VCM) {
	t.Helper()
	c, err := v.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for i := range l.calls {
		call := &l.calls[i]
		if call.Code != vending.Lost {
			continue
		}
		var tokens []*prismtoken1.Token
		tokens, err = c.API.FetchTokenResult_(t.Context(), vending.MessageID(), c.Token, call.MessageID)
		err = vending.Error("fetch", err)
		switch call.Code = vending.ErrorCode(err); {
		case err == nil:
			call.Tokens, call.Fetched = tokens, true
		case call.Code != "ECacheMiss":
			t.Fatalf("the answer to %s cannot be told: %v", call.MessageID, err)
		}
	}
}
