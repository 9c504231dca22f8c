package keyfd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func noSecretMemory(int) (int, error) { return -1, unix.ENOSYS }

func TestBothCarriers(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{0x5a}, 32)
	for _, tc := range []struct {
		want   Carrier
		secret func(int) (int, error)
	}{{Secret, unix.MemfdSecret}, {Sealed, noSecretMemory}} {
		f, carrier, err := pack(key, tc.secret)
		if err != nil {
			t.Fatal(err)
		}
		if carrier != tc.want {
			t.Fatalf("packed in %s, want %s; this kernel lacks memfd_secret (boot with secretmem.enable=1)", carrier, tc.want)
		}
		if carrier == Secret {
			if n, err := f.Read(make([]byte, 32)); err == nil {
				t.Errorf("secret memory was read as a file: %d bytes", n)
			}
		} else if _, err := f.WriteAt([]byte{1}, 0); err == nil {
			t.Error("a sealed key was written to")
		}
		k, err := Take(f, 32)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.Bytes(), key) || k.Carrier() != tc.want || !k.Locked() {
			t.Errorf("took %x by %s, locked %t", k.Bytes(), k.Carrier(), k.Locked())
		}
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Take left the descriptor open: %v", err)
		}
		k.Destroy()
		k.Destroy()
		if k.Bytes() != nil {
			t.Error("a destroyed key has bytes")
		}
	}
}

func TestTakeRefuses(t *testing.T) {
	t.Parallel()
	plain, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plain.Write(make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("open", unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	unsealed := os.NewFile(uintptr(fd), "unsealed")
	if _, err := unsealed.Write(make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	short, _, err := Pack(make([]byte, 31))
	if err != nil {
		t.Fatal(err)
	}
	shortSealed, _, err := pack(make([]byte, 33), noSecretMemory)
	if err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]*os.File{"a plain file": plain, "not sealed": unsealed, "31 bytes": short, "33 bytes": shortSealed} {
		if _, err := Take(f, 32); !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNewCopies(t *testing.T) {
	t.Parallel()
	mine := []byte("0123456789abcdef")
	k, err := New(mine)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Destroy()
	clear(mine)
	if string(k.Bytes()) != "0123456789abcdef" {
		t.Errorf("kept %q", k.Bytes())
	}
	if _, err := New(nil); err == nil {
		t.Error("an empty key was kept")
	}
	if _, _, err := Pack(nil); err == nil {
		t.Error("an empty key was packed")
	}
}
