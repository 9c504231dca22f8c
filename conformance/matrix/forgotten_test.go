package matrix_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/matrix"
)

// TestForgotten: the table has every method and field of the interface, and one
// that lacks any is found out.
func TestForgotten(t *testing.T) {
	t.Parallel()
	for _, testMode := range []bool{false, true} {
		if missing := matrix.Forgotten(matrix.Methods(testMode)); len(missing) != 0 {
			t.Errorf("test mode %v: %q", testMode, missing)
		}
	}
	tried := 0
	whole := matrix.Methods(false)
	for i, m := range whole {
		want := "method " + m.Name + " is not in the matrix"
		if got := matrix.Forgotten(slices.Delete(slices.Clone(whole), i, i+1)); !slices.Equal(got, []string{want}) {
			t.Errorf("without %s: %q", m.Name, got)
		}
		for _, field := range fieldsOf(m) {
			cut := slices.Clone(whole)
			cut[i].Cases = slices.DeleteFunc(slices.Clone(m.Cases), func(c matrix.Case) bool { return c.Field == field })
			if got := matrix.Forgotten(cut); len(got) != 1 || !strings.HasPrefix(got[0], "method "+m.Name+": field "+field) {
				t.Errorf("without %s of %s: %q", field, m.Name, got)
			}
			tried++
		}
	}
	if tried < 80 {
		t.Errorf("%d fields", tried)
	}
}

// fieldsOf lists the fields that the method's cases are about.
func fieldsOf(m matrix.Method) (out []string) {
	for _, c := range m.Cases {
		out = append(out, c.Field)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
