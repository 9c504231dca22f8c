// Package throttle decides which VCMs have to write slower for the sake of the
// others of their host: the rules alone, from figures that somebody else has read.
//
// Control groups divide processors, but nothing divides the disk: a VCM that was
// taken over and writes as fast as it can makes each commit of another one wait. A
// VCM that writes more than Rate for longer than Burst takes is therefore
// throttled to Limit until it has kept well below for a while. One that issues
// tokens as fast as its unit lets it, and copies its store while it does, never
// gets there: 10,000 tokens a second are 45 MB.
package throttle

import (
	"cmp"
	"slices"
	"time"
)

const (
	// Period is how often to look at the disk, which is a file of the kernel's.
	Period = 50 * time.Millisecond
	// Pause is for how long at least nobody looks at the VCMs again, which is a file
	// for each, but for the second look: that comes soon, as it takes two to see who
	// writes.
	Pause = 250 * time.Millisecond
	// Rate is what a VCM may write to the disk for long, in bytes a second, and
	// Burst what it may write beyond that at once, in bytes.
	Rate  = 96 << 20
	Burst = 32 << 20
	// Limit is what it may write once it was found to write more, in bytes a second.
	Limit = 32 << 20
	// Patience is how long it then has to write less than half of that.
	Patience = 2 * time.Second
)

// Order is what a VCM shall do from now on.
type Order struct {
	UUID     string
	Throttle bool
}

// Judge remembers what was written until now. Its zero value has seen nothing.
type Judge struct {
	at   time.Time
	disk int64

	looked   time.Time          // at the VCMs
	accounts map[string]account // as of then; nil if that says nothing any more
	first    bool               // there were none before
}

type account struct {
	written  int64
	level    float64 // bytes beyond Rate
	light    time.Duration
	throttle bool
}

// Judge returns what changes for whom, given how many bytes were ever written to
// the VCMs' disk. It asks how many each VCM's process has written, which is work
// where there are a thousand, only when much is being written, or was, or somebody
// is throttled.
func (j *Judge) Judge(at time.Time, disk int64, written func() map[string]int64) []Order {
	much := !j.at.IsZero() && float64(disk-j.disk) > Rate*at.Sub(j.at).Seconds()
	j.at, j.disk = at, disk
	dt := at.Sub(j.looked)
	soon := dt < Pause
	if !much && !j.remembers() {
		if !soon { // a disk may be busy by fits and starts
			j.accounts = nil
		}
		return nil
	}
	if soon && !j.first {
		return nil
	}
	j.looked, j.first = at, j.accounts == nil
	var orders []Order
	now := map[string]account{}
	for uuid, w := range written() {
		was, known := j.accounts[uuid]
		a := account{written: w}
		if known && w >= was.written { // else it is another process by now
			a = was.after(dt, w)
		}
		if a.throttle != was.throttle {
			orders = append(orders, Order{uuid, a.throttle})
		}
		now[uuid] = a
	}
	slices.SortFunc(orders, func(a, b Order) int { return cmp.Compare(a.UUID, b.UUID) })
	j.accounts = now
	return orders
}

func (j *Judge) remembers() bool {
	for _, a := range j.accounts {
		if a.throttle || a.level > 0 {
			return true
		}
	}
	return false
}

// after is the account when dt later so much has been written.
func (a account) after(dt time.Duration, written int64) account {
	bytes := float64(written - a.written)
	a.written = written
	a.level = max(0, a.level+bytes-Rate*dt.Seconds())
	if a.light += dt; bytes > Limit/2*dt.Seconds() {
		a.light = 0
	}
	switch {
	case a.level > Burst:
		a.level, a.throttle = Burst, true
	case a.light >= Patience:
		a.throttle = false
	}
	return a
}
