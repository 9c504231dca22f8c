// Package lifecycle checks, from outside, that what the provider does to VCMs is
// linearizable: every answer is explained by each operation having happened at
// one moment between its call and its answer, also across crashes of the
// orchestrator and of the store inside it.
//
// A VCM is one object of the history; its model is the state machine that the
// provider is told of. An operation whose answer was lost may have happened at
// any time after its call, or never.
package lifecycle

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/anishathalye/porcupine"
)

// Verb is what a client does.
type Verb string

// The verbs.
const (
	Create      Verb = "create"
	Start       Verb = "start"
	Stop        Verb = "stop"
	Delete      Verb = "delete"
	SetProperty Verb = "set"
	Read        Verb = "read"
)

// Input is one operation.
type Input struct {
	VCM   string // the name it was created with
	Verb  Verb
	Value bool // for SetProperty
}

// Outcome is how an operation ended.
type Outcome string

// The outcomes.
const (
	Done      Outcome = "done"
	Refused   Outcome = "refused"   // in this state
	Overtaken Outcome = "overtaken" // a start that a stop undid before it was ready
	Full      Outcome = "full"      // a limit or a licence
	Missing   Outcome = "missing"
	Unknown   Outcome = "unknown"
)

// Output is what the client was told.
type Output struct {
	Outcome Outcome
	Active  bool // Read: starting, running or stopping
	Value   bool // Read: the property
}

// Never is the return time of an operation whose answer was lost.
const Never = math.MaxInt64

// state of one VCM.
type state struct {
	Exists, Was, Active, Value bool
}

// step returns the states that may follow, none if the output cannot be.
func step(s state, in Input, out Output) []state {
	if out.Outcome == Unknown {
		next := []state{s}
		for _, o := range []Outcome{Done, Overtaken} {
			next = append(next, step(s, in, Output{Outcome: o})...)
		}
		return next
	}
	if in.Verb == Create {
		switch {
		case out.Outcome == Done && !s.Was:
			return []state{{Exists: true, Was: true}}
		case out.Outcome == Full && !s.Was:
			return []state{s}
		}
		return nil
	}
	if !s.Exists {
		if out.Outcome == Missing {
			return []state{s}
		}
		return nil
	}
	if in.Verb == Read {
		if out.Outcome == Done && out.Active == s.Active && out.Value == s.Value {
			return []state{s}
		}
		return nil
	}
	return change(s, in, out.Outcome)
}

// change is step for what changes a VCM that exists.
func change(s state, in Input, o Outcome) []state {
	next := s
	switch {
	case in.Verb == Start && o == Done: // also of one that is starting already
		next.Active = true
	case in.Verb == Start && o == Overtaken: // also one that joined another's start
		next.Active = true
	case in.Verb == Start && o == Full && !s.Active:
	case in.Verb == Start && o == Refused && s.Active:
	case in.Verb == Stop && o == Done && s.Active:
		next.Active = false
	case in.Verb == Stop && o == Refused && !s.Active:
	case in.Verb == Delete && o == Done && !s.Active:
		next.Exists = false
	case in.Verb == Delete && o == Refused && s.Active:
	case in.Verb == SetProperty && o == Done && !s.Active:
		next.Value = in.Value
	case in.Verb == SetProperty && o == Refused && s.Active:
	default:
		return nil
	}
	return []state{next}
}

// Model is what histories are checked against.
func Model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			at := map[string]int{}
			var parts [][]porcupine.Operation
			for _, op := range history {
				name := op.Input.(Input).VCM
				i, ok := at[name]
				if !ok {
					i = len(parts)
					at[name], parts = i, append(parts, nil)
				}
				parts[i] = append(parts[i], op)
			}
			return parts
		},
		Init: func() []any { return []any{state{}} },
		Step: func(s, in, out any) []any {
			var next []any
			for _, n := range step(s.(state), in.(Input), out.(Output)) {
				next = append(next, n)
			}
			return next
		},
		Equal: func(a, b any) bool { return a == b },
		DescribeOperation: func(in, out any) string {
			i, o := in.(Input), out.(Output)
			return fmt.Sprintf("%s %s %t: %s active=%t value=%t", i.Verb, i.VCM, i.Value, o.Outcome, o.Active, o.Value)
		},
		DescribeState: func(s any) string { return fmt.Sprintf("%+v", s) },
	}
	return m.ToModel()
}

// FirstWrong returns what had been answered, in the order of the answers, when
// the history of one VCM could no longer be explained; the last answer is the
// one that cannot be.
func FirstWrong(history []porcupine.Operation) []porcupine.Operation {
	answers := slices.Clone(history)
	slices.SortFunc(answers, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	n := sort.Search(len(answers), func(n int) bool {
		until := answers[n].Return
		var seen []porcupine.Operation
		for _, op := range history {
			if op.Call > until {
				continue
			}
			if op.Return > until { // not answered yet
				op.Output, op.Return = Output{Outcome: Unknown}, Never
			}
			seen = append(seen, op)
		}
		return !porcupine.CheckOperations(Model(), seen)
	})
	return answers[:min(n+1, len(answers))]
}
