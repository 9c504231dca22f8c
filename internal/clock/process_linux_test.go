package clock_test

import (
	"os"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/clock"
)

func TestOfProcessCountsWhatItUses(t *testing.T) {
	t.Parallel()
	before, err := clock.OfProcess(os.Getpid())
	if err != nil || before <= 0 {
		t.Fatalf("%v, %v", before, err)
	}
	for end := time.Now().Add(10 * time.Second); ; {
		now, err := clock.OfProcess(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now > before+time.Millisecond {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it stands still")
		}
	}
	if _, err := clock.OfProcess(1 << 28); err == nil {
		t.Error("there is a clock of no process")
	}
}
