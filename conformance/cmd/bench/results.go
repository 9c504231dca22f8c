package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// results collects the rounds of every benchmark, in the order of their first
// appearance.
type results struct {
	order  []string
	byName map[string]*samples
}

// samples are the rounds of one benchmark.
type samples struct {
	folder    string
	reference string // as the benchmark reports it, "" for none
	unit      string // "ns/op", or the unit of a throughput
	values    []float64
	times     []float64 // ns/op, whatever the unit is
	allocs    float64   // the most of any round
	others    []string  // units of the other metrics, in the order of their first appearance
	metrics   map[string][]float64
}

const referencePrefix = "Reference"

func newResults() *results { return &results{byName: make(map[string]*samples)} }

// add reads the output of one round of a package's benchmarks.
func (r *results) add(folder string, output []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(output))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.ParseUint(fields[1], 10, 64); err != nil {
			continue // a log line of the benchmark
		}
		name := folder + "/" + benchmarkName(fields[0])
		if err := r.sampleOf(name, folder).addRound(fields[2:]); err != nil {
			return errkind.Errorf(errkind.Internal, "%s: %w", name, err)
		}
	}
	if err := lines.Err(); err != nil {
		return errkind.Errorf(errkind.Internal, "read the output of %s: %w", folder, err)
	}
	return nil
}

// benchmarkName removes "Benchmark" and the number of cores.
func benchmarkName(field string) string {
	name := strings.TrimPrefix(field, "Benchmark")
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		if _, err := strconv.Atoi(name[i+1:]); err == nil {
			name = name[:i]
		}
	}
	return name
}

func (r *results) sampleOf(name, folder string) *samples {
	s := r.byName[name]
	if s == nil {
		s = &samples{folder: folder, unit: "ns/op", metrics: map[string][]float64{}}
		r.byName[name] = s
		r.order = append(r.order, name)
	}
	return s
}

// addRound reads pairs of value and unit.
func (s *samples) addRound(pairs []string) error {
	if len(pairs)%2 != 0 {
		return errkind.Errorf(errkind.Internal, "odd number of fields in %q", pairs)
	}
	value := math.NaN()
	for i := 0; i < len(pairs); i += 2 {
		v, err := strconv.ParseFloat(pairs[i], 64)
		if err != nil {
			return errkind.Errorf(errkind.Internal, "not a number: %q", pairs[i])
		}
		switch unit := pairs[i+1]; {
		case unit == "ns/op":
			s.times = append(s.times, v)
			if math.IsNaN(value) {
				value = v
			}
		case unit == "allocs/op":
			s.allocs = max(s.allocs, v)
		case strings.HasPrefix(unit, "ref:"):
			s.reference = strings.TrimPrefix(unit, "ref:")
		case unit == "B/op" || unit == "MB/s":
		case strings.HasSuffix(unit, "/s"):
			s.unit, value = unit, v
		default:
			if s.metrics[unit] == nil {
				s.others = append(s.others, unit)
			}
			s.metrics[unit] = append(s.metrics[unit], v)
		}
	}
	if math.IsNaN(value) {
		return errkind.Errorf(errkind.Internal, "no time in %q", pairs)
	}
	s.values = append(s.values, value)
	return nil
}

// print writes a line for each benchmark.
func (r *results) print(w io.Writer) error {
	for _, name := range r.order {
		s := r.byName[name]
		value, spread := median(s.values)
		ratio, reference := r.ratio(s, value)
		line := fmt.Sprintf("bench %s %s %s ratio=%s ref=%s spread=%.0f%% allocs=%.0f",
			name, significant(value), s.unit, ratio, reference, 100*spread, s.allocs)
		for _, unit := range s.others {
			m, _ := median(s.metrics[unit])
			line += " " + unit + "=" + significant(m)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return errkind.Errorf(errkind.Unavailable, "write the result: %w", err)
		}
	}
	return nil
}

// ratio returns the ratio to the reference and the reference's full name, "-"
// where there is none.
func (r *results) ratio(s *samples, value float64) (ratio, name string) {
	if s.reference == "" {
		return "-", "-"
	}
	folder, short := s.folder, s.reference
	if i := strings.LastIndexByte(short, '/'); i >= 0 {
		folder, short = short[:i], short[i+1:]
	}
	name = folder + "/" + referencePrefix + short
	ref := r.byName[name]
	if other := r.byName[folder+"/"+short]; ref == nil && other != nil {
		name, ref = folder+"/"+short, other
	}
	if ref == nil {
		return "-", name
	}
	base, _ := median(ref.values)
	if s.unit != ref.unit {
		base, _ = median(ref.times)
		if s.unit != "ns/op" {
			base = 1e9 / base
		}
	}
	return strconv.FormatFloat(value/base, 'f', 2, 64), name
}

// median returns the median of the rounds and the largest relative distance of a
// round from it.
func median(values []float64) (m, spread float64) {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	m = (sorted[(n-1)/2] + sorted[n/2]) / 2
	if m > 0 {
		spread = max(sorted[n-1]-m, m-sorted[0]) / m
	}
	return m, spread
}

// significant prints four significant digits without an exponent.
func significant(v float64) string {
	decimals := 0
	for limit := 1000.0; decimals < 4 && v < limit; limit /= 10 {
		decimals++
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}
