package crash_test

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// The head of a file of the store: a magic text, a commitment to the key, and an
// identifier that every rewriting of the state draws anew.
const (
	headSize = 64
	idOffset = headSize - 16
)

// mostOnDisk is more than a file of the store may have: a quarter above its quota.
const mostOnDisk = 16<<20*5/4 + 1<<20

// disk watches the files of a running VCM's store, from outside of its sandbox.
type disk struct {
	compactions int   // how often the state was rewritten into the other file
	largest     int64 // of any file
}

// watch looks until ctx ends.
func (d *disk) watch(ctx context.Context, r *rig.Rig, v *rig.VCM) {
	seen := map[string]bool{}
	for ctx.Err() == nil {
		files, _ := filepath.Glob(r.Path("platform", "vcms", v.UUID, "store.*")) // the pattern is a good one
		for _, name := range files {
			p, err := readHead(name)
			if err != nil || len(p) < headSize {
				continue // empty: the spare one
			}
			if id := string(p[idOffset:]); !seen[id] {
				seen[id] = true
				d.compactions = len(seen) - 1
			}
			if st, err := os.Stat(name); err == nil {
				d.largest = max(d.largest, st.Size())
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func readHead(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	p := make([]byte, headSize)
	n, err := f.Read(p)
	return p[:n], err
}
