// Package lifecycle is what a VCM is to its provider: a record and a state
// machine. It is pure: callers persist the record it returns before they act.
//
// # States
//
//	created   never started
//	starting  a process is being launched, or will be again after it was lost
//	running   the process serves the tenant
//	stopping  the process was told to end
//	stopped   started before, no process
//	failed    supervision gave up; Reason says why
//	deleting  the partition's key is being destroyed; no way back
//
// starting, stopping and deleting are intermediate: Recover says how each goes
// on after the orchestrator died in the middle, so none can be left stuck.
package lifecycle

import (
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// State is a VCM's state; its text is on the wire.
type State string

// The states.
const (
	Created  State = "created"
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Stopped  State = "stopped"
	Failed   State = "failed"
	Deleting State = "deleting"
)

// States returns every state.
func States() []State {
	return []State{Created, Starting, Running, Stopping, Stopped, Failed, Deleting}
}

// Active reports whether a VCM in this state counts against the licensed number
// of active VCMs.
func (s State) Active() bool { return s == Starting || s == Running || s == Stopping }

// Event is something that happens to a VCM.
type Event string

// The events.
const (
	Start   Event = "start"   // asked for by the provider, or autostart
	Ready   Event = "ready"   // the process serves
	Lost    Event = "lost"    // the process ended unasked; it will be launched again
	GiveUp  Event = "give-up" // launching again is of no use
	Stop    Event = "stop"    // asked for by the provider
	Kept    Event = "kept"    // the process declined to stop: the tenant's service is operational
	Ended   Event = "ended"   // the process ended as it was told to
	Delete  Event = "delete"  // asked for by the provider
	Recover Event = "recover" // the orchestrator died and is back on the same boot of the host
	Reboot  Event = "reboot"  // the orchestrator or its host was shut down and is back
)

// Events returns every event.
func Events() []Event {
	return []Event{Start, Ready, Lost, GiveUp, Stop, Kept, Ended, Delete, Recover, Reboot}
}

// Verdict is what the state machine says to an event.
type Verdict uint8

const (
	// Move changes the state.
	Move Verdict = iota + 1
	// Stay accepts the event and leaves the state: it repeats what is under way.
	Stay
	// Ignore drops a report that came too late to matter.
	Ignore
	// Refuse tells the caller no; nothing changes.
	Refuse
)

// Decision is the machine's answer for one state and event.
type Decision struct {
	Verdict Verdict
	Next    State  // with Move
	Why     string // with Refuse: completes "VCM … is <state>: "
}

func move(s State) Decision        { return Decision{Verdict: Move, Next: s} }
func refuse(why string) Decision   { return Decision{Verdict: Refuse, Why: why} }
func row(d ...Decision) []Decision { return d }

// Decide answers event e in state s. Every pair of known values is decided.
func Decide(s State, e Event) (Decision, bool) {
	stay, ignore := Decision{Verdict: Stay}, Decision{Verdict: Ignore}
	already := refuse("it is running already")
	going := refuse("it is being deleted")
	idle := refuse("it is not running")
	first := refuse("stop it first")
	busy := refuse("wait until it has stopped")
	// Columns in the order of States: created, starting, running, stopping, stopped, failed, deleting.
	table := map[Event][]Decision{
		Start:   row(move(Starting), stay, already, busy, move(Starting), move(Starting), going),
		Ready:   row(ignore, move(Running), ignore, ignore, ignore, ignore, ignore),
		Lost:    row(ignore, stay, move(Starting), move(Stopped), ignore, ignore, ignore),
		GiveUp:  row(ignore, move(Failed), move(Failed), move(Stopped), ignore, ignore, ignore),
		Stop:    row(idle, move(Stopping), move(Stopping), stay, idle, move(Stopped), going),
		Kept:    row(ignore, ignore, ignore, move(Running), ignore, ignore, ignore),
		Ended:   row(ignore, ignore, ignore, move(Stopped), ignore, ignore, ignore),
		Delete:  row(move(Deleting), first, first, first, move(Deleting), move(Deleting), stay),
		Recover: row(stay, stay, move(Starting), move(Stopped), stay, stay, stay),
		Reboot:  row(stay, move(Stopped), move(Stopped), move(Stopped), stay, stay, stay),
	}
	r, ok := table[e]
	if !ok {
		return Decision{}, false
	}
	for i, known := range States() {
		if known == s {
			return r[i], true
		}
	}
	return Decision{}, false
}

// Apply returns the record after e happened at the module's time at. changed is
// false where the event leaves the record as it is. A refusal has kind Mode.
func (r Record) Apply(e Event, at time.Time, reason string) (next Record, changed bool, err error) {
	d, ok := Decide(r.State, e)
	if !ok {
		return r, false, errkind.Errorf(errkind.Integrity, "VCM %s: no decision for event %q in state %q", r.UUID, e, r.State)
	}
	switch d.Verdict {
	case Refuse:
		return r, false, errkind.Errorf(errkind.Mode, "VCM %s is %s: %s", r.UUID, r.State, d.Why)
	case Move:
		next = r
		next.State, next.Changed, next.Reason = d.Next, at.UTC(), reason
		switch e {
		case Start:
			next.Restarts = 0
		case Lost:
			next.Restarts++
		}
		return next, true, nil
	default:
		return r, false, nil
	}
}
