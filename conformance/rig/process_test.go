package rig

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// badDaemon leaves a child behind that outlives it.
const badDaemon = `#!/bin/sh
trap 'exit 0' TERM
sleep 600 >/dev/null 2>&1 &
echo started
while :; do sleep 0.05; done
`

// TestStopFindsWhatIsLeft: a daemon that ends well, or is killed, but leaves a
// process is found out, and the process ends.
func TestStopFindsWhatIsLeft(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Rig, *Daemon){
		"stopped": func(*Rig, *Daemon) {},
		"killed":  func(r *Rig, d *Daemon) { r.Kill(d) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			if err := os.WriteFile(filepath.Join(bin, "bad"), []byte(badDaemon), 0o700); err != nil {
				t.Fatal(err)
			}
			r := New(bin, t.TempDir(), io.Discard)
			r.orphans = 300 * time.Millisecond
			d, err := r.Start(Provider, "bad")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Await(t.Context(), "its word", func() bool { return strings.Contains(r.Tail(d), "started") }); err != nil {
				t.Fatal(err)
			}
			children := descendants(d.PID())
			if len(children) == 0 {
				t.Fatal("it has no child")
			}
			end(r, d)
			if err := r.Stop(); err == nil || !strings.Contains(err.Error(), "was left behind") {
				t.Errorf("stop: %v", err)
			}
			for stop := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				alive := false
				for _, p := range children {
					alive = alive || p.Alive()
				}
				if !alive {
					break
				}
				if time.Now().After(stop) {
					t.Fatalf("%v are alive", children)
				}
			}
		})
	}
}
