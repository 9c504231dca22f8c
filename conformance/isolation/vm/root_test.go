package vm

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// entry is one of an archive, read as the kernel does.
type entry struct {
	mode    uint64
	content string
}

func unpack(t *testing.T, p []byte) map[string]entry {
	t.Helper()
	out := map[string]entry{}
	for at := 0; ; {
		if at+110 > len(p) || !bytes.Equal(p[at:at+6], []byte("070701")) {
			t.Fatalf("no header at %d of %d", at, len(p))
		}
		field := func(i int) int {
			n, err := strconv.ParseUint(string(p[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		mode, size, length := field(1), field(6), field(11)
		name := string(p[at+110 : at+110+length-1])
		start := (at + 110 + length + 3) &^ 3
		if name == "TRAILER!!!" {
			return out
		}
		out[name] = entry{uint64(mode), string(p[start : start+size])}
		at = (start + size + 3) &^ 3
	}
}

func TestTheInitialFileSystemHoldsThePrograms(t *testing.T) {
	t.Parallel()
	programs, dir := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(programs, "hostile"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"suite": "12345", "hostile/vcmd": "other"} {
		if err := os.WriteFile(filepath.Join(programs, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../suite", filepath.Join(programs, "hostile", "suite")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "initrd")
	if err := (Machine{Programs: programs, Init: "suite"}).makeRoot(path); err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := unpack(t, p)
	for name, want := range map[string]entry{
		"init": {0o120777, "bin/suite"}, "bin/suite": {0o100755, "12345"}, "bin/hostile/vcmd": {0o100755, "other"},
		"bin/hostile/suite": {0o120777, "../suite"}, "bin/hostile": {0o040755, ""}, "dev/console": {0o020666, ""}, "run": {0o040755, ""},
	} {
		if got[name] != want {
			t.Errorf("%s is %+v instead of %+v", name, got[name], want)
		}
	}
}
