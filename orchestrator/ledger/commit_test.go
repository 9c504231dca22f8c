package ledger_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
)

// Requests that share commits do not share their failures.
func TestOneFailureIsNobodyElses(t *testing.T) {
	t.Parallel()
	l := open(t, t.TempDir())
	const n = 64
	odd := errors.New("odd one out")
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			errs[i] = l.Update(t.Context(), func(tx ledger.Tx) error {
				if err := tx.Log().Put(fmt.Appendf(nil, "%02d", i), []byte("there")); err != nil {
					return err
				}
				switch i % 8 {
				case 3:
					return odd
				case 5:
					panic("broken")
				}
				return nil
			})
		})
	}
	wg.Wait()
	there := map[string]bool{}
	err := l.View(func(tx ledger.Tx) error {
		return tx.Log().Range(nil, func(key, _ []byte) error { there[string(key)] = true; return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		var ok bool
		switch i % 8 {
		case 3:
			ok = errors.Is(err, odd)
		case 5:
			ok = err != nil && strings.Contains(err.Error(), "broken")
		default:
			ok = err == nil
		}
		if !ok || there[fmt.Sprintf("%02d", i)] != (err == nil) {
			t.Errorf("request %d: %v, there: %v", i, err, there[fmt.Sprintf("%02d", i)])
		}
	}
}
