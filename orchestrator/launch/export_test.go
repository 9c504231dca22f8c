package launch

// Disconnect closes our end of the control socket, as the orchestrator's death does.
func Disconnect(p *Process) { _ = p.conn.Close() }

// FindCgroupsIn is FindCgroups on given tables of the kernel.
var FindCgroupsIn = findCgroups

// NewWords is where a process's standard error goes.
var NewWords = newWords
