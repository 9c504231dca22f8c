package launch

// clone3 makes a process, which carries out the calls. The result is the
// kernel's: its number, or an error's negated.
//
//go:noescape
func clone3(args *cloneArgs, size uintptr, first *call, count uintptr, failed *uint32) (pid uintptr)
