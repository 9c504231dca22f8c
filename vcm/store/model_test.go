package store

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A store behaves like a map, whatever is put, deleted, ranged over, undone and
// reopened.
func TestAStoreIsAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		f := newFixture(t)
		if rapid.Bool().Draw(rt, "cold") {
			f.cold = []Keys{{"b", "a"}}
		}
		s := f.mustOpen(t)
		model := map[string]string{}
		var copying *copier
		key := rapid.StringMatching(`[ab]{1,3}`)
		undone := errors.New("undone")
		rt.Repeat(map[string]func(*rapid.T){
			"update": func(rt *rapid.T) {
				next := maps.Clone(model)
				fail := rapid.Bool().Draw(rt, "fail")
				err := s.Update(t.Context(), func(tx *Tx) error {
					b := tx.Bucket("b")
					for range rapid.IntRange(1, 5).Draw(rt, "writes") {
						k := key.Draw(rt, "key")
						if rapid.Bool().Draw(rt, "delete") {
							delete(next, k)
							if err := b.Delete([]byte(k)); err != nil {
								return err
							}
						} else {
							next[k] = strings.Repeat(rapid.String().Draw(rt, "value"), rapid.IntRange(1, 200).Draw(rt, "times"))
							if err := b.Put([]byte(k), []byte(next[k])); err != nil {
								return err
							}
						}
						compare(rt, b, next, rapid.StringMatching(`[ab]{0,2}`).Draw(rt, "prefix"))
					}
					if fail {
						return undone
					}
					return nil
				})
				if fail != errors.Is(err, undone) {
					rt.Fatal(err)
				}
				if !fail {
					model = next
				}
			},
			"step of a compaction": func(rt *rapid.T) {
				var err error
				if copying == nil {
					copying, err = s.beginCopy()
				}
				if err == nil {
					err = copying.step()
				}
				if err != nil {
					rt.Fatal(err)
				}
			},
			"end of a compaction": func(rt *rapid.T) {
				if copying == nil {
					return
				}
				if err := copying.leave(copying.end()); err != nil {
					rt.Fatal(err)
				}
				copying = nil
			},
			"reopen": func(rt *rapid.T) {
				if copying != nil { // as after a crash in it, but for the locks
					if err := copying.leave(nil); err != nil {
						rt.Fatal(err)
					}
					s.spare.Store(copying.to.f)
					copying = nil
				}
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = f.mustOpen(t)
			},
			"compact": func(rt *rapid.T) {
				if copying == nil {
					s.compact()
				}
			},
			"": func(rt *rapid.T) {
				err := s.View(t.Context(), func(tx *Tx) error {
					compare(rt, tx.Bucket("b"), model, "")
					return nil
				})
				if err != nil {
					rt.Fatal(err)
				}
			},
		})
		if copying != nil {
			_ = copying.leave(errEnding)
		}
		if err := s.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

func compare(t *rapid.T, b *Bucket, model map[string]string, prefix string) {
	var want, got []string
	for _, k := range slices.Sorted(maps.Keys(model)) {
		if strings.HasPrefix(k, prefix) {
			want = append(want, k+"="+model[k])
		}
	}
	err := b.Range([]byte(prefix), func(k, v []byte) error {
		got = append(got, string(k)+"="+string(v))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("range of %q: %q, want %q", prefix, got, want)
	}
	for k, v := range model {
		got, err := b.Get([]byte(k))
		if err != nil || string(got) != v {
			t.Fatalf("get %q: %q, %v, want %q", k, got, err, v)
		}
	}
}
