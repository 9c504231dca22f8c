// Command bench runs the Go benchmarks of this module with repetition and prints
// one line a benchmark on standard output:
//
//	bench NAME VALUE UNIT ratio=R ref=REFERENCE spread=S% allocs=N [METRIC=M...]
//
// NAME is the folder of the package, a slash, and the name of the benchmark
// without "Benchmark". VALUE is the median of the rounds and spread the largest
// distance of a round from it; allocs is the number of heap allocations an
// operation. R is VALUE divided by the reference's value of the same run, so it
// does not depend on the machine; it is "-" for a benchmark without a reference.
// Whatever else a benchmark reports follows, as the median of the rounds: p50-ms,
// p99-ms, MiB-before.
//
// # How to add a benchmark
//
// Write it in a _test.go file of its package; bench finds every package that has
// one. A bare primitive that others are measured against is a benchmark whose
// name begins with BenchmarkReference. A benchmark names its reference by
// reporting the metric "ref:" and the reference's name after its loop:
//
//	func BenchmarkReferenceEcho(b *testing.B) { ... }
//
//	func BenchmarkIssue(b *testing.B) {
//		defer func() { b.ReportMetric(1, "ref:Echo") }()
//		for b.Loop() { ... }
//	}
//
// "ref:Echo" is the reference of the same package, "ref:hsm/sts/Echo" that of
// another one; where there is no such reference, it is the benchmark of that
// name, so that one benchmark can be measured against a part of itself. VALUE is the time of an operation in ns/op. A benchmark that
// reports a metric whose unit ends in "/s" is a throughput: VALUE and UNIT are
// that metric, and R is VALUE divided by the reference's throughput in the same
// unit, or, if the reference reports none, by what it would reach on one core,
// 1 s / its time.
//
// # How it measures
//
// Each package's test binary is built once and run once a round, all benchmarks
// in each round, so that a disturbance of the machine meets benchmark and
// reference alike. No result is judged: bench fails only if a benchmark does.
package main

import (
	"github.com/tesserae-hsm/tesserae/internal/console"
)

func main() { console.Main(App) }
