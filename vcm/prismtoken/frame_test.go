package prismtoken

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/iotest"
)

// fuzzServer answers pings only: nothing else is needed to read messages.
func fuzzServer() *Server {
	log := slog.New(slog.DiscardHandler)
	return &Server{handler: &handler{log: log}, log: log}
}

// FuzzFrame reads arbitrary octets as frames and answers each: without panic,
// without more memory than was sent, and always with a well-formed frame.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{
		"00000022" + "800100010000000470696e670000000708000100000000" + "0b000200000001" + "78" + "00",
		"00000000", "7fffffff", "ffffffff", "0000000c" + "800100010000000470696e67",
		"00000018" + "800100010000000470696e6700000007" + "0f0063007fffffff",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	const limit = 1 << 16
	s := fuzzServer()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, r := range []io.Reader{bytes.NewReader(data), iotest.OneByteReader(bytes.NewReader(data))} {
			for {
				var header [frameHeader]byte
				n, err := r.Read(header[:])
				if err != nil {
					break
				}
				size, err := frameSize(r, &header, n, limit)
				var refused *frameError
				if errors.As(err, &refused) && refused.size >= 0 && refused.size <= limit {
					t.Fatalf("frame of %d refused", refused.size)
				}
				if err != nil {
					break
				}
				x := newCodec(limit)
				if err := x.read(r, size); err != nil {
					if cap(x.in) > len(data)+2*readStep+len(data)/2 {
						t.Fatalf("%d octets for %d sent", cap(x.in), len(data))
					}
					break
				}
				ctx, cancel := context.WithCancel(context.Background())
				cancel() // a ping does not wait
				out := s.answer(ctx, x)
				if len(out) < frameHeader || int(binary.BigEndian.Uint32(out)) != len(out)-frameHeader {
					t.Fatalf("answer %x is not a frame", out)
				}
			}
		}
	})
}

// TestPanic: a call that panics is answered, and its connection is not harmed.
func TestPanic(t *testing.T) {
	t.Parallel()
	s := fuzzServer() // has no accounts, so whatever needs them panics
	x := newCodec(1 << 16)
	call, err := hex.DecodeString("80010001" + "00000009" + hex.EncodeToString([]byte("getStatus")) + "00000005" + "0b0001000000016d" + "0b00020000000174" + "00")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := x.read(bytes.NewReader(call), len(call)); err != nil {
			t.Fatal(err)
		}
		out := s.answer(context.Background(), x)
		if want := "80010003" + "00000009" + hex.EncodeToString([]byte("getStatus")) + "00000005"; !bytes.HasPrefix(out[frameHeader:], mustHex(t, want)) {
			t.Errorf("answer %x", out)
		}
	}
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
