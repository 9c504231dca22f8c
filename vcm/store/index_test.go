package store

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A bucket's index is an ordered map, and so is every copy taken of it on the way.
func TestAnIndexAndItsCopiesAreIndependentMaps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var numbers owners
		type pair struct {
			b     *bucket
			model map[string]string
		}
		all := []pair{{&bucket{owner: numbers.next()}, map[string]string{}}}
		for i := range rapid.IntRange(1, 400).Draw(rt, "steps") {
			p := &all[rapid.IntRange(0, len(all)-1).Draw(rt, "which")]
			key := fmt.Sprintf("%03d", rapid.IntRange(0, 300).Draw(rt, "key"))
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0:
				if len(all) < 5 {
					all = append(all, pair{p.b.copy(&numbers), maps.Clone(p.model)})
				}
			case 1, 2:
				_, had := p.b.remove([]byte(key))
				if _, want := p.model[key]; had != want {
					rt.Fatalf("remove %s: %v, want %v", key, had, want)
				}
				delete(p.model, key)
			default:
				value := fmt.Sprint(i)
				old, had := p.b.set(newItem(nil, []byte(key), []byte(value), 1))
				if want, there := p.model[key]; had != there || had && string(old.value()) != want {
					rt.Fatalf("set %s gave %q, %v, want %q", key, old.value(), had, want)
				}
				p.model[key] = value
			}
		}
		for _, p := range all {
			from := fmt.Sprintf("%03d", rapid.IntRange(0, 300).Draw(rt, "from"))
			var want, got []string
			for _, k := range slices.Sorted(maps.Keys(p.model)) {
				if k >= from {
					want = append(want, k+p.model[k])
				}
			}
			p.b.scan([]byte(from), func(it *item) bool {
				got = append(got, string(it.key())+string(it.value()))
				return true
			})
			if !slices.Equal(got, want) {
				rt.Fatalf("from %s: %q, want %q", from, got, want)
			}
			for k, v := range p.model {
				if it := p.b.get([]byte(k)); it == nil || string(it.value()) != v {
					rt.Fatalf("get %s", k)
				}
			}
		}
	})
}

func TestAnArenaGivesEachItsOwnRoomAndWipesIt(t *testing.T) {
	t.Parallel()
	var a arena
	for range 3 {
		var all [][]byte
		for i := range 1000 {
			p := a.take(i)
			if len(p) != 0 || cap(p) < i {
				t.Fatalf("take(%d): %d of %d", i, len(p), cap(p))
			}
			p = p[:i]
			for j := range p {
				if i <= arenaBlock/4 && p[j] != 0 {
					t.Fatal("not wiped")
				}
				p[j] = byte(i)
			}
			all = append(all, p)
		}
		for i, p := range all {
			for _, c := range p {
				if c != byte(i) {
					t.Fatalf("slice %d was overwritten", i)
				}
			}
		}
		a.wipe()
	}
	if len(a.blocks) > arenaKept {
		t.Errorf("%d blocks are kept", len(a.blocks))
	}
}
