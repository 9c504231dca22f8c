package main

import (
	"context"
	"errors"
	"testing"
)

// fakeDevice is a counter that tells how often it was asked.
type fakeDevice struct {
	at     uint64
	asked  int
	broken error
}

func (d *fakeDevice) Raise(_ context.Context, v uint64) (uint64, error) {
	if d.asked++; d.broken != nil {
		return 0, d.broken
	}
	d.at = max(d.at, v)
	return d.at, nil
}

func TestKnownCounter(t *testing.T) {
	t.Parallel()
	d := &fakeDevice{at: 7}
	k := &knownCounter{Counter: d, at: 7}
	for _, step := range []struct {
		raise, want uint64
		asked       int
		broken      error
	}{
		{raise: 0, want: 7, asked: 0},
		{raise: 7, want: 7, asked: 0}, // the store is where the module saw it last
		{raise: 3, want: 7, asked: 0}, // it was rolled back, which the answer shows
		{raise: 9, asked: 1, broken: errors.New("out of reach")},
		{raise: 9, want: 9, asked: 2}, // what failed is not known
		{raise: 8, want: 9, asked: 2},
		{raise: 12, want: 12, asked: 3},
	} {
		d.broken = step.broken
		before := k.known()
		got, err := k.Raise(t.Context(), step.raise)
		if !errors.Is(err, step.broken) || err == nil && got != step.want || d.asked != step.asked {
			t.Errorf("raise to %d: %d, %v, device asked %d times; want %d, %v, %d times", step.raise, got, err, d.asked, step.want, step.broken, step.asked)
		}
		// What was asked for may have happened although nobody said so.
		if want := max(before, step.raise); k.known() != want {
			t.Errorf("after a raise to %d it stands at %d at most, want %d", step.raise, k.known(), want)
		}
	}
}
