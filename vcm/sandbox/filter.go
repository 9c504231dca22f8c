package sandbox

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// What a filter answers, in the kernel's numbers.
const (
	answerAllow  = uint32(unix.SECCOMP_RET_ALLOW)
	answerRefuse = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	answerKill   = uint32(unix.SECCOMP_RET_KILL_PROCESS)
	answerNoCall = uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
)

// policy is a filter before it is assembled: what the calls that it names get,
// and all others, among them those of a foreign architecture.
type policy struct {
	matched, otherwise uint32
	rules              []rule
}

// rule names a call. With tests it matches only if all of one list hold.
type rule struct {
	call  uint32
	tests [][]test
}

// test is of one argument.
type test struct {
	argument uint32
	what     comparison
	value    uint32
}

type comparison int

const (
	equals comparison = iota // all 64 bits
	hasBit                   // at least one of value's
	lacks                    // all bits of value
)

// always are rules without tests.
func always(calls []uint32) []rule {
	rules := make([]rule, len(calls))
	for i, c := range calls {
		rules[i].call = c
	}
	return rules
}

// Offsets in what a filter looks at, struct seccomp_data.
const (
	offsetCall = 0
	offsetArch = 4
	offsetArgs = 16 // 8 bytes each, the low half first: see architecture
)

// assemble makes the kernel's program of a policy: the architecture first, then a
// binary search for the call. The kernel runs a new filter once for every call
// there is, and at each call whose answer depends on arguments; a chain of
// comparisons would make both ten times as long.
func assemble(p policy) ([]unix.SockFilter, error) {
	if architecture == 0 {
		return nil, errkind.Errorf(errkind.Unavailable, "the system calls of this architecture are not listed")
	}
	p.rules = slices.SortedFunc(slices.Values(p.rules), func(a, b rule) int { return cmp.Compare(a.call, b.call) })
	for i := 1; i < len(p.rules); i++ {
		if p.rules[i].call == p.rules[i-1].call {
			return nil, errkind.Errorf(errkind.Internal, "call %d has two rules", p.rules[i].call)
		}
	}
	tree, err := p.search(p.spans())
	if err != nil {
		return nil, err
	}
	program := []unix.SockFilter{
		load(offsetArch), jump(unix.BPF_JEQ, architecture, 1, 0), answer(p.otherwise),
		load(offsetCall),
	}
	if secondABI != 0 {
		program = append(program, jump(unix.BPF_JGE, secondABI, 0, 1), answer(answerNoCall))
	}
	return append(program, tree...), nil
}

// span is the calls from a number on, up to the next span.
type span struct {
	from  uint32
	found *rule // nil: no rule names them
}

// spans lays the rules, which are in order, out over all numbers, those of equal
// outcome together.
func (p policy) spans() []span {
	out := make([]span, 0, 2*len(p.rules)+1)
	next := uint32(0) // after the last rule
	for i := range p.rules {
		r := &p.rules[i]
		if r.call > next {
			out = append(out, span{from: next})
		}
		out = append(out, span{from: r.call, found: r})
		next = r.call + 1
	}
	return slices.CompactFunc(append(out, span{from: next}), span.same)
}

// same reports whether both spans lead to one outcome.
func (s span) same(t span) bool {
	if s.found == nil || t.found == nil {
		return s.found == t.found
	}
	return s.found.tests == nil && t.found.tests == nil
}

// search is the program that finds the call, which is in the accumulator.
func (p policy) search(spans []span) ([]unix.SockFilter, error) {
	if len(spans) == 1 {
		return p.outcome(spans[0].found)
	}
	half := len(spans) / 2
	below, err := p.search(spans[:half])
	if err != nil {
		return nil, err
	}
	above, err := p.search(spans[half:])
	if err != nil {
		return nil, err
	}
	if len(below) > 255 {
		return nil, errkind.Errorf(errkind.Internal, "the filter has a jump over %d instructions", len(below))
	}
	program := append(make([]unix.SockFilter, 0, 1+len(below)+len(above)), jump(unix.BPF_JGE, spans[half].from, uint8(len(below)), 0))
	return append(append(program, below...), above...), nil
}

// outcome is the program for a call that was found.
func (p policy) outcome(r *rule) ([]unix.SockFilter, error) {
	if r == nil {
		return []unix.SockFilter{answer(p.otherwise)}, nil
	}
	var program []unix.SockFilter
	for _, list := range r.tests {
		var one []unix.SockFilter
		for _, t := range list {
			one = append(one, t.program()...)
		}
		one = append(one, answer(p.matched))
		for i := range one { // a test that fails goes on after this list
			if one[i].Jt == fails {
				one[i].Jt = uint8(len(one) - i - 1)
			}
			if one[i].Jf == fails {
				one[i].Jf = uint8(len(one) - i - 1)
			}
		}
		if len(one) > int(fails) {
			return nil, errkind.Errorf(errkind.Internal, "call %d has %d instructions of tests", r.call, len(one))
		}
		program = append(program, one...)
	}
	if len(r.tests) == 0 {
		return []unix.SockFilter{answer(p.matched)}, nil
	}
	return append(program, answer(p.otherwise)), nil
}

// fails is the place of a jump that is not known yet.
const fails = uint8(255)

func (t test) program() []unix.SockFilter {
	low := offsetArgs + 8*t.argument
	switch t.what {
	case equals:
		return []unix.SockFilter{
			load(low + 4), jump(unix.BPF_JEQ, 0, 0, fails),
			load(low), jump(unix.BPF_JEQ, t.value, 0, fails),
		}
	case hasBit:
		return []unix.SockFilter{load(low), jump(unix.BPF_JSET, t.value, 0, fails)}
	default:
		return []unix.SockFilter{load(low), jump(unix.BPF_JSET, t.value, fails, 0)}
	}
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jump(how uint16, value uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | how, Jt: yes, Jf: no, K: value}
}

func answer(a uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: a} }

// enforceFilter puts a filter in force on every thread.
func enforceFilter(p policy) error {
	program, err := assemble(p)
	if err != nil {
		return err
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	odd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f)))
	switch {
	case e != 0:
		return fmt.Errorf("load the filter: %w", e)
	case odd != 0: // the kernel loads it on none then
		return errkind.Errorf(errkind.Unavailable, "thread %d has a filter of its own", odd)
	}
	return nil
}
