package sandbox

import (
	"encoding/binary"
	"slices"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// call is what the kernel shows a filter, struct seccomp_data.
type call struct {
	nr, arch uint32
	args     [6]uint64
}

func (c call) bytes() []byte {
	p := binary.LittleEndian.AppendUint32(nil, c.nr)
	p = binary.LittleEndian.AppendUint32(p, c.arch)
	p = binary.LittleEndian.AppendUint64(p, 0) // instruction pointer
	for _, a := range c.args {
		p = binary.LittleEndian.AppendUint64(p, a)
	}
	return p
}

// run is the kernel's answer to a call, and after how many instructions.
func run(t *testing.T, program []unix.SockFilter, c call) (answer uint32, steps int) {
	t.Helper()
	data := c.bytes()
	var a uint32
	for pc := 0; pc < len(program); pc++ {
		steps++
		i := program[pc]
		taken := func(yes bool) {
			if yes {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		}
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.LittleEndian.Uint32(data[i.K:])
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			taken(a == i.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			taken(a >= i.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			taken(a > i.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			taken(a&i.K != 0)
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
		case unix.BPF_RET | unix.BPF_K:
			return i.K, steps
		default:
			t.Fatalf("instruction %d has code %#x", pc, i.Code)
		}
	}
	t.Fatal("the program has no end")
	return 0, 0
}

// independent assembles a policy by the library's tables and rules, from the
// names of the calls.
func independent(t *testing.T, p policy) []unix.SockFilter {
	t.Helper()
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	action := func(answer uint32) seccomp.Action { // it adds the number to an action of its own
		if answer == answerRefuse {
			return seccomp.ActionErrno
		}
		return seccomp.Action(answer)
	}
	group := seccomp.SyscallGroup{Action: action(p.matched)}
	for _, r := range p.rules {
		name, ok := info.SyscallNumbers[int(r.call)]
		if !ok {
			t.Fatalf("call %d has no name", r.call)
		}
		if len(r.tests) == 0 {
			group.Names = append(group.Names, name)
		}
		for _, list := range r.tests {
			n := seccomp.NameWithConditions{Name: name}
			for _, one := range list {
				operation := map[comparison]seccomp.Operation{equals: seccomp.Equal, hasBit: seccomp.BitsSet, lacks: seccomp.BitsNotSet}[one.what]
				n.Conditions = append(n.Conditions, seccomp.Condition{Argument: one.argument, Operation: operation, Value: uint64(one.value)})
			}
			group.NamesWithCondtions = append(group.NamesWithCondtions, n)
		}
	}
	instructions, err := (&seccomp.Policy{DefaultAction: action(p.otherwise), Syscalls: []seccomp.SyscallGroup{group}}).Assemble()
	if err != nil {
		t.Fatal(err)
	}
	var program []unix.SockFilter
	for _, i := range instructions {
		raw, err := i.Assemble()
		if err != nil {
			t.Fatal(err)
		}
		program = append(program, unix.SockFilter{Code: raw.Op, Jt: raw.Jt, Jf: raw.Jf, K: raw.K})
	}
	return program
}

// Both filters answer every call as an independent assembler's would.
func TestFiltersAnswerAsTheirListsSay(t *testing.T) {
	t.Parallel()
	const calls = 700 // more than the kernel has
	for name, p := range map[string]policy{"admission": admission(), "sentence": sentence()} {
		ours, err := assemble(p)
		if err != nil {
			t.Fatal(err)
		}
		theirs := independent(t, p)
		values := []uint64{0, 1, 2, 1 << 31, 1 << 32, 1<<64 - 1}
		for _, r := range p.rules {
			for _, list := range r.tests {
				for _, one := range list {
					values = append(values, uint64(one.value), uint64(one.value)+1, uint64(one.value)|1<<32, ^uint64(one.value))
				}
			}
		}
		for bit := range 64 {
			values = append(values, 1<<bit, unix.CLONE_THREAD|1<<bit)
		}
		numbers := []uint32{secondABI, secondABI + 1, secondABI + unix.SYS_SOCKET, 1<<32 - 1}
		for n := range uint32(calls) {
			numbers = append(numbers, n)
		}
		answers := map[uint32]int{}
		for _, nr := range numbers {
			for _, foreign := range []uint32{architecture, architecture + 1, unix.AUDIT_ARCH_I386} {
				for _, v := range values {
					c := call{nr: nr, arch: foreign}
					for i := range c.args {
						c.args[i] = v
					}
					got, _ := run(t, ours, c)
					if want, _ := run(t, theirs, c); got != want {
						t.Fatalf("%s: call %d of architecture %#x with %#x: %#x, want %#x", name, nr, foreign, v, got, want)
					}
					answers[got]++
				}
			}
		}
		if answers[p.matched] == 0 || answers[p.otherwise] == 0 {
			t.Errorf("%s has the answers %v only", name, answers)
		}
	}
}

// A filter that is long to run is long to load: the kernel tries every call.
func TestFiltersAreShort(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]policy{"admission": admission(), "sentence": sentence()} {
		program, err := assemble(p)
		if err != nil {
			t.Fatal(err)
		}
		most := 0
		for nr := range uint32(700) {
			_, n := run(t, program, call{nr: nr, arch: architecture})
			most = max(most, n)
		}
		if most > 24 {
			t.Errorf("%s, of %d instructions, runs up to %d", name, len(program), most)
		}
	}
}

func TestAssembleRefuses(t *testing.T) {
	t.Parallel()
	many := make([]test, 100)
	for name, p := range map[string]policy{
		"two rules for a call": {rules: rules([]uint32{1, 2, 1})},
		"too many tests":       {rules: []rule{{1, [][]test{many}}}},
		"too long a jump":      {rules: []rule{{1, [][]test{many[:50], many[:50]}}, {3, [][]test{many[:50], many[:50]}}, {5, nil}, {7, nil}, {9, nil}, {11, nil}}},
	} {
		if program, err := assemble(p); err == nil {
			t.Errorf("%s: assembled to %d instructions", name, len(program))
		}
	}
}

// No call is on both lists, and the list of allowed ones stays short.
func TestTheListsOfCallsAreDisjoint(t *testing.T) {
	t.Parallel()
	for _, c := range deadly() {
		if slices.Contains(allowed(), c) {
			t.Errorf("call %d is allowed and deadly", c)
		}
	}
	if n := len(allowed()) + len(guarded()); n > 90 {
		t.Errorf("%d calls are allowed", n)
	}
}
