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

// rules are those for calls without tests, and guarded ones.
func rules(calls []uint32, guarded ...rule) []rule {
	all := make([]rule, 0, len(calls)+len(guarded))
	for _, c := range calls {
		all = append(all, rule{call: c})
	}
	return append(all, guarded...)
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
	slices.SortFunc(p.rules, func(a, b rule) int { return cmp.Compare(a.call, b.call) })
	for i := 1; i < len(p.rules); i++ {
		if p.rules[i].call == p.rules[i-1].call {
			return nil, errkind.Errorf(errkind.Internal, "call %d has two rules", p.rules[i].call)
		}
	}
	a := assembly{policy: p, program: make([]unix.SockFilter, 0, 4*len(p.rules))}
	a.add(load(offsetArch), jump(unix.BPF_JEQ, architecture, 1, 0), answer(p.otherwise), load(offsetCall))
	if secondABI != 0 {
		a.add(jump(unix.BPF_JGE, secondABI, 0, 1), answer(answerNoCall))
	}
	a.search(p.spans())
	return a.program, a.err
}

// assembly is a program in the making.
type assembly struct {
	policy
	program []unix.SockFilter
	err     error
}

func (a *assembly) add(more ...unix.SockFilter) { a.program = append(a.program, more...) }

// over is how far a jump at from leads to the end of the program.
func (a *assembly) over(from int) uint8 {
	far := len(a.program) - from - 1
	if far > 255 {
		a.err = errkind.Errorf(errkind.Internal, "the filter has a jump over %d instructions", far)
	}
	return uint8(far)
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

// search finds the call, which is in the accumulator.
func (a *assembly) search(spans []span) {
	if len(spans) == 1 {
		a.outcome(spans[0].found)
		return
	}
	half, at := len(spans)/2, len(a.program)
	a.add(jump(unix.BPF_JGE, spans[half].from, 0, 0))
	a.search(spans[:half])
	a.program[at].Jt = a.over(at)
	a.search(spans[half:])
}

// outcome answers a call that was found.
func (a *assembly) outcome(r *rule) {
	switch {
	case r == nil:
		a.add(answer(a.otherwise))
	case len(r.tests) == 0:
		a.add(answer(a.matched))
	default:
		for _, list := range r.tests {
			a.all(list)
		}
		a.add(answer(a.otherwise))
	}
}

// all matches if every test of the list holds, or goes on after it.
func (a *assembly) all(list []test) {
	begin := len(a.program)
	for _, t := range list {
		low := offsetArgs + 8*t.argument
		switch t.what {
		case equals:
			a.add(load(low+4), jump(unix.BPF_JEQ, 0, 0, fails), load(low), jump(unix.BPF_JEQ, t.value, 0, fails))
		case hasBit:
			a.add(load(low), jump(unix.BPF_JSET, t.value, 0, fails))
		case lacks:
			a.add(load(low), jump(unix.BPF_JSET, t.value, fails, 0))
		}
	}
	a.add(answer(a.matched))
	for i := begin; i < len(a.program); i++ {
		if one := &a.program[i]; one.Jt == fails {
			one.Jt = a.over(i)
		} else if one.Jf == fails {
			one.Jf = a.over(i)
		}
	}
}

// fails is the place of a jump that is not known yet.
const fails = uint8(255)

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
