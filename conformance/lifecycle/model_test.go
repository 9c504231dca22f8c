package lifecycle_test

import (
	"testing"

	"github.com/anishathalye/porcupine"

	. "github.com/tesserae-hsm/tesserae/conformance/lifecycle"
)

// op is an operation of VCM v; to Never for one without an answer.
func op(from, to int64, verb Verb, out Output) porcupine.Operation {
	return porcupine.Operation{Call: from, Return: to, Input: Input{VCM: "v", Verb: verb, Value: verb == SetProperty}, Output: out}
}

func TestModelTellsRightFromWrong(t *testing.T) {
	t.Parallel()
	done, refused, missing, unknown := Output{Outcome: Done}, Output{Outcome: Refused}, Output{Outcome: Missing}, Output{Outcome: Unknown}
	active := Output{Outcome: Done, Active: true}
	created := op(0, 1, Create, done)
	for _, c := range []struct {
		name    string
		history []porcupine.Operation
		right   bool
	}{
		{"a life", []porcupine.Operation{created, op(2, 3, Start, done), op(4, 5, Read, active), op(6, 7, Stop, done), op(8, 9, SetProperty, done),
			op(10, 11, Read, Output{Outcome: Done, Value: true}), op(12, 13, Delete, done), op(14, 15, Read, missing)}, true},
		{"deleted while it ran", []porcupine.Operation{created, op(2, 3, Start, done), op(4, 5, Delete, done)}, false},
		{"a property of a running one", []porcupine.Operation{created, op(2, 3, Start, done), op(4, 5, SetProperty, done)}, false},
		{"an acknowledged start is lost", []porcupine.Operation{created, op(2, 3, Start, done), op(4, 5, Read, done)}, false},
		{"an acknowledged stop is lost", []porcupine.Operation{created, op(2, 3, Start, done), op(4, 5, Stop, done), op(6, 7, Read, active)}, false},
		{"an acknowledged create is lost", []porcupine.Operation{created, op(2, 3, Read, missing)}, false},
		{"an acknowledged property is lost", []porcupine.Operation{created, op(2, 3, SetProperty, done), op(4, 5, Read, done)}, false},
		{"it comes back", []porcupine.Operation{created, op(2, 3, Delete, done), op(4, 5, Read, done)}, false},
		{"made twice", []porcupine.Operation{created, op(2, 3, Create, done)}, false},
		{"refused for no reason", []porcupine.Operation{created, op(2, 3, Start, refused)}, false},
		{"read goes back in time", []porcupine.Operation{created, op(2, 9, Start, done), op(3, 4, Read, active), op(5, 6, Read, done)}, false},
		{"at once, either order", []porcupine.Operation{created, op(2, 9, Start, done), op(3, 8, Delete, refused)}, true},
		{"at once, but not both", []porcupine.Operation{created, op(2, 9, Start, done), op(3, 8, Delete, done)}, false},
		{"overtaken", []porcupine.Operation{created, op(2, 9, Start, Output{Outcome: Overtaken}), op(3, 8, Stop, done), op(10, 11, Read, done)}, true},
		{"overtaken by nobody", []porcupine.Operation{created, op(2, 9, Start, Output{Outcome: Overtaken}), op(10, 11, Read, done)}, false},
		{"lost answer, done", []porcupine.Operation{created, op(2, Never, Start, unknown), op(5, 6, Read, active)}, true},
		{"lost answer, not done", []porcupine.Operation{created, op(2, Never, Start, unknown), op(5, 6, Read, done)}, true},
		{"lost answer, done and undone by nobody", []porcupine.Operation{created, op(2, Never, Start, unknown), op(5, 6, Read, active), op(7, 8, Read, done)}, false},
		{"a lost create may be", []porcupine.Operation{op(0, Never, Create, unknown), op(5, 6, Read, done)}, true},
		{"a lost create need not be", []porcupine.Operation{op(0, Never, Create, unknown), op(5, 6, Read, missing)}, true},
		{"a limit", []porcupine.Operation{created, op(2, 3, Start, Output{Outcome: Full}), op(4, 5, Read, done)}, true},
	} {
		if got := porcupine.CheckOperations(Model(), c.history); got != c.right {
			t.Errorf("%s: linearizable = %t", c.name, got)
		}
	}
}
