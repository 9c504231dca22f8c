package prismtoken_test

import (
	"context"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// gate lets issuing calls pass once it is opened.
type gate struct{ come, open chan struct{} }

func (g gate) Take(context.Context) error {
	g.come <- struct{}{}
	<-g.open
	return nil
}

// TestLostAnswerOfASlowCall: a client hangs up on a call that waits for its turn.
// Asked for its result, the service does not say that there is none while one may
// come.
func TestLostAnswerOfASlowCall(t *testing.T) {
	t.Parallel()
	g := gate{make(chan struct{}), make(chan struct{})}
	r := newRig(t, func(r *rig) { r.speed = g })
	r.load(group(123456, 1))
	r.user("vendor", "ptoken-issue-any")
	ctx := t.Context()
	impatient := r.client()
	token := r.signIn(impatient, "vendor")
	m := prismtoken1.NewMeterConfigIn()
	m.Drn, m.Ea, m.Tct, m.Sgc, m.Krn, m.Ti, m.Ken = "01234567897", 11, 2, 123456, 1, 1, 255
	issued := make(chan error, 1)
	go func() {
		_, err := impatient.IssueCreditToken(ctx, "slow", token, m, 0, 10, 0, 0)
		issued <- err
	}()
	<-g.come
	r.hangUp()
	if err := <-issued; err == nil {
		t.Fatal("the client has not hung up")
	}
	type result struct {
		tokens []*prismtoken1.Token
		err    error
	}
	fetched := make(chan result, 1)
	later := r.client()
	go func() {
		tokens, err := later.FetchTokenResult_(ctx, "fetch", token, "slow")
		fetched <- result{tokens, err}
	}()
	select {
	case got := <-fetched:
		t.Fatalf("while the call was in progress: %v, %v", got.tokens, got.err)
	case <-time.After(300 * time.Millisecond):
	}
	if _, err := r.client().FetchTokenResult_(ctx, "fetch", token, "never"); err == nil {
		t.Error("the result of a call that never was")
	}
	close(g.open)
	if got := <-fetched; got.err != nil || len(got.tokens) != 1 {
		t.Errorf("after the call: %v, %v", got.tokens, got.err)
	}
}
