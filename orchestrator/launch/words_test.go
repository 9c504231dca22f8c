package launch_test

import (
	"bytes"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/orchestrator/launch"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestWordsOfAProcess(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	w := launch.NewWords(slog.New(slog.NewTextHandler(&log, nil)))
	for _, p := range []string{"one\ntw", "o\n\x1b[2Jthree", "\n", strings.Repeat("x", 5000), "\n"} {
		if n, err := w.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("%d %v", n, err)
		}
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 4 || !strings.Contains(lines[1], "two") || strings.Contains(log.String(), "\x1b") || len(lines[3]) > 700 {
		t.Errorf("%q", lines)
	}
	log.Reset()
	for range 10000 {
		_, _ = w.Write([]byte("flood\n"))
	}
	if n := strings.Count(log.String(), "flood"); n == 0 || n > 300 {
		t.Errorf("%d of 10000 lines came through", n)
	}
}
