package embedded

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func TestListensNowhere(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n := len(s.etcd.Clients) + len(s.etcd.Peers); n != 0 {
		t.Errorf("%d listeners", n)
	}
	if _, err := s.Client().Put(t.Context(), "k", "v"); err != nil {
		t.Error(err)
	}
	if r, err := s.Client().Get(t.Context(), "k"); err != nil || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "v" {
		t.Errorf("%v %v", r, err)
	}
}

func TestQuotaIsKept(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{Dir: t.TempDir(), Quota: 1 << 20, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	big := string(make([]byte, 500<<10))
	for range 60 { // the server looks at the size ten times a second
		if _, err = s.Client().Put(t.Context(), "k", big); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("30 MB went into a database of 1 MB")
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	if _, err := Start(t.Context(), Config{Dir: "/proc/none", Log: slog.New(slog.DiscardHandler)}); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("a folder that cannot be: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := Start(ctx, Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err == nil { // it was ready before anyone looked at the context
		s.Close()
	}
}
