package interop

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

// recorded returns every frame of the recordings with its stub's answer.
func recorded(t testing.TB) map[string][]struct {
	frame
	Reply string `json:"stub_reply_hex"`
} {
	t.Helper()
	entries, err := captured.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	type exchange = struct {
		frame
		Reply string `json:"stub_reply_hex"`
	}
	all := map[string][]exchange{}
	for _, e := range entries {
		p, err := captured.ReadFile("testdata/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		var r struct{ Frames []exchange }
		if err := json.Unmarshal(p, &r); err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = r.Frames
	}
	if len(all) != 5 {
		t.Fatalf("%d recordings, want 5", len(all))
	}
	return all
}

func body(t testing.TB, framed string) []byte {
	t.Helper()
	p, err := hex.DecodeString(framed)
	if err != nil || len(p) < 4 || int(binary.BigEndian.Uint32(p)) != len(p)-4 {
		t.Fatalf("not a frame: %s", framed)
	}
	return p[4:]
}

// TestParseAnswer: the recorded answers are well-formed, and every damage to
// them is found.
func TestParseAnswer(t *testing.T) {
	t.Parallel()
	for name, frames := range recorded(t) {
		for i, f := range frames {
			good := body(t, f.Reply)
			a, err := parseAnswer(t.Context(), f.frame, good)
			if err != nil || a.outcome == "" {
				t.Errorf("%s frame %d: %+v, %v", name, i+1, a, err)
			}
			for n := range len(good) {
				if a, err := parseAnswer(t.Context(), f.frame, good[:n]); err == nil {
					t.Fatalf("%s frame %d cut to %d bytes: %+v", name, i+1, n, a)
				}
			}
			if _, err := parseAnswer(t.Context(), f.frame, append(good[:len(good):len(good)], 0)); err == nil {
				t.Errorf("%s frame %d: a byte behind the answer is accepted", name, i+1)
			}
			other := f.frame
			other.SeqID++
			if _, err := parseAnswer(t.Context(), other, good); err == nil {
				t.Errorf("%s frame %d: another sequence number is accepted", name, i+1)
			}
			other = f.frame
			other.Method += "x"
			if _, err := parseAnswer(t.Context(), other, good); err == nil {
				t.Errorf("%s frame %d: another method is accepted", name, i+1)
			}
			// An empty result has neither value nor exception.
			if _, err := parseAnswer(t.Context(), f.frame, append(good[:12+len(f.Method):12+len(f.Method)], 0)); err == nil || !strings.Contains(err.Error(), "neither") {
				t.Errorf("%s frame %d: an empty result: %v", name, i+1, err)
			}
		}
	}
}

func TestLiveFrame(t *testing.T) {
	t.Parallel()
	cfg := Config{User: "somebody", Meters: Meters{SGC: 77}}
	for name, frames := range recorded(t) {
		for i, f := range frames {
			p, err := f.live(cfg, "a live token", "a live password")
			if err != nil {
				t.Fatalf("%s frame %d: %v", name, i+1, err)
			}
			if int(binary.BigEndian.Uint32(p)) != len(p)-4 {
				t.Errorf("%s frame %d: wrong length", name, i+1)
			}
			text := string(p)
			if f.Args.AccessToken != "" && (strings.Contains(text, f.Args.AccessToken) || !strings.Contains(text, "a live token")) {
				t.Errorf("%s frame %d: access token not replaced", name, i+1)
			}
			if f.Method == "signInWithPassword" && f.Args.Username == recordedUser && (!strings.Contains(text, "somebody") || !strings.Contains(text, "a live password")) {
				t.Errorf("%s frame %d: credentials not replaced", name, i+1)
			}
		}
	}
	if _, err := (frame{Request: "zz"}).live(cfg, "", ""); err == nil {
		t.Error("a request that is not hexadecimal is accepted")
	}
}

func FuzzParseAnswer(f *testing.F) {
	for _, frames := range recorded(f) {
		for _, x := range frames {
			f.Add(x.Method, body(f, x.Reply))
		}
	}
	f.Fuzz(func(t *testing.T, method string, p []byte) {
		a, err := parseAnswer(t.Context(), frame{Method: method, SeqID: 1}, p)
		if err == nil && a.outcome == "" {
			t.Fatal("an answer without an outcome")
		}
	})
}
