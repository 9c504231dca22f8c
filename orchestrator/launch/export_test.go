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
	if l.forker.link == nil {
		return 0
	}
	return l.forker.link.pid
}

// Die lets go of everything as the death of the launcher's process does.
func Die(l *Launcher, all ...*Process) {
	for _, p := range all {
		p.Leave()
	}
	l.forker.leave()
	_ = l.release()
}

// SocketName is the forker's socket in the folder of its launcher.
const SocketName = socketName

// Reach gives a short name to the socket in a folder.
var Reach = reach
