package launch

// Disconnect closes our end of the control socket, as the orchestrator's death does.
func Disconnect(p *Process) { _ = p.conn.Close() }

// FindCgroupsIn is FindCgroups on given tables of the kernel.
var FindCgroupsIn = findCgroups

// NewWords is where a process's standard error goes.
var NewWords = newWords

// ForkerPID is the process that makes processes, 0 if there is none.
func ForkerPID(l *Launcher) int {
	l.forker.mu.Lock()
	defer l.forker.mu.Unlock()
	if l.forker.process == nil {
		return 0
	}
	return l.forker.process.Pid
}
