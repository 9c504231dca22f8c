package atomicfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
)

func TestWriteReplacesWholeAndLeavesNothingBeside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, text := range []string{"first and longer", "second"} {
		if err := atomicfile.Write(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := atomicfile.Read(path, 64)
		if err != nil || string(got) != text {
			t.Fatalf("read %q, %v", got, err)
		}
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestWriteFailureKeepsTheOldFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "missing")
	if err := atomicfile.Write(filepath.Join(dir, "f"), []byte("x"), 0o600); err == nil {
		t.Error("wrote into a folder that does not exist")
	}
}

func TestReadRefusesLargeFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := atomicfile.Write(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := atomicfile.Read(path, 4); err == nil {
		t.Error("5 bytes passed a limit of 4")
	}
	if _, err := atomicfile.Read(path, 5); err != nil {
		t.Error(err)
	}
}
