package tsm_test

import (
	"context"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// Each self-test can fail, and then nothing works and the log says why.
func TestEachSelfTestCanFail(t *testing.T) {
	t.Parallel()
	names := tsm.SelfTests()
	if len(names) < 15 {
		t.Fatalf("only %d self-tests", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tsm.SelfTest(name); err == nil || !strings.Contains(err.Error(), "self-test "+name+" failed") {
				t.Errorf("the unit's self-test: %v", err)
			}
			r := newRig(t).with(group(123456))
			var log []tsm.Event
			m := r.open(r.vault, func(c *tsm.Config) {
				c.BreakSelfTest = name
				c.Audit = func(_ tsm.Tx, e tsm.Event) error { log = append(log, e); return nil }
			})
			// The curve's tests run before it is used first.
			_, err := m.KeyAgreement(context.Background(), r.publicKey(r.kmc))
			want(t, err, tsm.CodeAppError)
			if !strings.Contains(m.Failure(), "self-test "+name+" failed") {
				t.Fatalf("failure %q", m.Failure())
			}
			if len(log) == 0 || log[0].Kind != "selftest.failed" || !strings.Contains(log[0].Detail["reason"], name) {
				t.Errorf("audit: %+v", log)
			}
			r.m = m
			_, err = r.credit(r.creditInput())
			want(t, err, tsm.CodeAppError)
			_, err = m.KeyAgreement(context.Background(), r.publicKey(r.kmc))
			want(t, err, tsm.CodeAppError)
			_, err = m.DeleteKey(context.Background(), 1)
			want(t, err, tsm.CodeAppError)
			st, err := m.Status(context.Background())
			if err != nil || st.Failure != m.Failure() {
				t.Errorf("status %+v, %v", st, err)
			}
		})
	}
}

func TestAHealthyModuleHasNoFailure(t *testing.T) {
	t.Parallel()
	if err := tsm.SelfTest(""); err != nil {
		t.Error(err)
	}
	r := newRig(t)
	if r.m.Failure() != "" {
		t.Errorf("failure %q", r.m.Failure())
	}
}
