package main

import (
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const round1 = `goos: linux
BenchmarkIssue-2      	  100	 200.0 ns/op	 1.000 ref:Echo	 0 B/op	 0 allocs/op
BenchmarkRemote-2     	  100	 50.5 ns/op	 1.000 ref:hsm/sts/Echo
BenchmarkRate-2       	  100	 400.0 ns/op	 5000000 tokens/s	 1.000 ref:Echo	 16 B/op	 1 allocs/op
BenchmarkAlone/of-8-2 	  100	 0.25 ns/op
BenchmarkLost-2       	  100	 7 ns/op	 1 ref:Nowhere
BenchmarkReferenceEcho-2	  100	 100.0 ns/op
BenchmarkWhole-2	  100	 440.0 ns/op	 1 ref:Lost
BenchmarkHalf-2	  100	 4.0 ns/op	 2500000 tokens/s	 1.25 p99-ms	 1 ref:Rate	 11.5 MiB-before	 7 B/op
BenchmarkTalks said something here
PASS
`

func TestLines(t *testing.T) {
	t.Parallel()
	r := newResults()
	for _, c := range []struct{ folder, out string }{
		{"vcm/pos", round1},
		{"vcm/pos", strings.ReplaceAll(round1, "200.0", "240.0")},
		{"vcm/pos", strings.ReplaceAll(round1, "200.0", "220.0")},
		{"hsm/sts", "BenchmarkReferenceEcho 10 101 ns/op\n"},
	} {
		if err := r.add(c.folder, []byte(c.out)); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	const want = `bench vcm/pos/Issue 220.0 ns/op ratio=2.20 ref=vcm/pos/ReferenceEcho spread=9% allocs=0
bench vcm/pos/Remote 50.50 ns/op ratio=0.50 ref=hsm/sts/ReferenceEcho spread=0% allocs=0
bench vcm/pos/Rate 5000000 tokens/s ratio=0.50 ref=vcm/pos/ReferenceEcho spread=0% allocs=1
bench vcm/pos/Alone/of-8 0.2500 ns/op ratio=- ref=- spread=0% allocs=0
bench vcm/pos/Lost 7.000 ns/op ratio=- ref=vcm/pos/ReferenceNowhere spread=0% allocs=0
bench vcm/pos/ReferenceEcho 100.0 ns/op ratio=- ref=- spread=0% allocs=0
bench vcm/pos/Whole 440.0 ns/op ratio=62.86 ref=vcm/pos/Lost spread=0% allocs=0
bench vcm/pos/Half 2500000 tokens/s ratio=0.50 ref=vcm/pos/Rate spread=0% allocs=0 p99-ms=1.250 MiB-before=11.50
bench hsm/sts/ReferenceEcho 101.0 ns/op ratio=- ref=- spread=0% allocs=0
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestUnreadableRounds(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"BenchmarkA 10 x ns/op", "BenchmarkA 10 5 ns/op 3", "BenchmarkA 10 5 B/op"} {
		if err := newResults().add("p", []byte(line)); !errkind.Is(err, errkind.Internal) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values    []float64
		m, spread float64
	}{{[]float64{3}, 3, 0}, {[]float64{4, 1, 2}, 2, 1}, {[]float64{1, 3}, 2, 0.5}, {[]float64{0, 0}, 0, 0}} {
		if m, s := median(c.values); m != c.m || s != c.spread {
			t.Errorf("%v: %v %v", c.values, m, s)
		}
	}
}

func TestPackagesWithBenchmarks(t *testing.T) {
	t.Parallel()
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	got, err := packagesWithBenchmarks(fstest.MapFS{
		"a/a_test.go":          file("package a\nfunc TestA() {}\n"),
		"a/b_test.go":          file("package a\n\nfunc BenchmarkA(b *testing.B) {}\n"),
		"a/c_test.go":          file("package a\n\nfunc BenchmarkB(b *testing.B) {}\n"),
		"b/b.go":               file("package b\n\nfunc BenchmarkNot() {}\n"),
		"c/testdata/c_test.go": file("package c\n\nfunc BenchmarkC(b *testing.B) {}\n"),
		".d/d_test.go":         file("package d\n\nfunc BenchmarkD(b *testing.B) {}\n"),
		"e/f/e_test.go":        file("package e\n\nfunc BenchmarkE(b *testing.B) {}\n"),
	})
	if want := []string{"a", "e/f"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}
