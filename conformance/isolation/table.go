package isolation

import (
	"fmt"
	"strings"
)

// printMatrix prints rows against attempts.
func (s *Suite) printMatrix(done []*outcome) {
	all := attempts()
	s.print("\nAttempts, as %s:\n", who())
	for i, a := range all {
		s.print("  %2d %-16s %s\n", i+1, a.name, a.about)
	}
	s.print("A allowed, - refused, x the attacker's process was ended for it, . not tried\n\n")
	width := 0
	for _, o := range done {
		width = max(width, len(o.name))
	}
	var tens, ones strings.Builder
	for i := range all {
		if (i+1)%10 == 0 {
			fmt.Fprint(&tens, (i+1)/10)
		} else {
			tens.WriteByte(' ')
		}
		fmt.Fprint(&ones, (i+1)%10)
	}
	s.print("%-*s %s\n%-*s %s  level\n", width, "", tens.String(), width, "layers", ones.String())
	for _, o := range done {
		if o.reason != "" {
			s.print("%-*s (%s)\n", width, o.name, o.reason)
			continue
		}
		var line strings.Builder
		for _, a := range all {
			switch o.result(a.name) {
			case "":
				line.WriteByte('.')
			case allowed:
				line.WriteByte('A')
			case killed:
				line.WriteByte('x')
			default:
				line.WriteByte('-')
			}
		}
		s.print("%-*s %s  %s\n", width, o.name, line.String(), o.level)
	}
	s.print("\n")
}
