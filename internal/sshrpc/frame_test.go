package sshrpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// fixed answers every call.
type fixed struct{}

func (fixed) ShowKeys(context.Context) ([]*sshadmin.ServiceKey, error) { return nil, nil }
func (fixed) InstallKeys(_ context.Context, keys []*sshadmin.ClientKey) ([]*sshadmin.ServiceKey, error) {
	if len(keys) == 0 {
		return nil, errkind.Errorf(errkind.Invalid, "no key")
	}
	return []*sshadmin.ServiceKey{{ServiceName: keys[0].ServiceName}}, nil
}

func testServer() *server {
	return &server{cfg: ServerConfig{Limits: Limits{}.withDefaults()}, log: slog.New(slog.DiscardHandler)}
}

// FuzzRequest sends anything as a request's bytes: every answer is a Thrift
// message, or there is an error that ends the session.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x15\x80\x01\x00\x01\x00\x00\x00\x08showKeys\x00\x00\x00\x01\x00"))
	f.Add([]byte("\x00\x00\x00\x18\x80\x01\x00\x01\x00\x00\x00\x0binstallKeys\x00\x00\x00\x01\x00"))
	f.Add([]byte("\x00\x00\x00\x20\x80\x01\x00\x01\x00\x00\x00\x0binstallKeys\x00\x00\x00\x01\x0f\x00\x01\x0c\x7f\xff\xff\xff\x00"))
	f.Add([]byte("\x00\x00\x00\x14\x80\x01\x00\x01\x00\x00\x00\x07nothing\x00\x00\x00\x01\x00"))
	f.Add([]byte("\xff\xff\xff\xff"))
	s, p := testServer(), sshadmin.NewSshAdminProcessor(fixed{})
	who := Session{Service: "sshadmin", Remote: &net.TCPAddr{}}
	f.Fuzz(func(t *testing.T, stream []byte) {
		request, err := readFrame(bytes.NewReader(stream), 1<<16, func() {})
		if err != nil {
			return
		}
		answer, err := s.process(t.Context(), who, p, request)
		if err != nil {
			return
		}
		if len(answer) < 12 || binary.BigEndian.Uint16(answer) != 0x8001 {
			t.Fatalf("answer %q", answer)
		}
	})
}

func TestFramesRoundTrip(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	for _, n := range []int{1, 5, 4096} {
		if err := writeFrame(&b, bytes.Repeat([]byte{7}, n)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []int{1, 5, 4096} {
		got, err := readFrame(&b, 4096, func() {})
		if err != nil || len(got) != n {
			t.Errorf("%d bytes came back as %d, %v", n, len(got), err)
		}
	}
	if _, err := readFrame(&b, 4096, func() { t.Error("an empty stream has begun a frame") }); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.7:80": "192.0.2.7/32", "[::ffff:192.0.2.7]:80": "192.0.2.7/32", "[2001:db8:0:1:2::3]:80": "2001:db8:0:1::/64", "[fe80::1%eth0]:1": "fe80::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := sourceOf(a).String(); got != want {
			t.Errorf("%s counts as %s, want %s", address, got, want)
		}
	}
	if sourceOf(&net.UnixAddr{Name: "/x"}).IsValid() {
		t.Error("a socket's path became an IP prefix")
	}
}
