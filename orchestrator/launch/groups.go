package launch

import "sync"

// group makes a VCM's control group, or none where that cannot be had.
func (l *Launcher) group(spec Spec) Group {
	l.tidy(false)
	uuid := spec.Start.UUID
	l.use(uuid)
	g, err := l.cfg.Cgroups.Make(uuid, spec.Limits)
	if err != nil {
		l.cfg.Log.Warn("no control group", "uuid", uuid, "err", err)
		g = noGroup{}
	}
	return used{g, sync.OnceFunc(func() { l.unuse(uuid) })}
}

// inUse says that g is a VCM's until it is removed.
func (l *Launcher) inUse(uuid string, g Group) Group {
	l.use(uuid)
	return used{g, sync.OnceFunc(func() { l.unuse(uuid) })}
}

// used is a group that its launcher knows of.
type used struct {
	Group
	unuse func()
}

func (u used) Remove() {
	u.Group.Remove()
	u.unuse()
}

func (l *Launcher) use(uuid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.groups[uuid]++
}

func (l *Launcher) unuse(uuid string) {
	l.mu.Lock()
	if l.groups[uuid]--; l.groups[uuid] <= 0 {
		delete(l.groups, uuid)
	}
	l.mu.Unlock()
	l.tidy(false)
}

// tidy removes the control groups that a launcher before this one left empty. What
// still has a process is tried again when there is an occasion.
func (l *Launcher) tidy(always bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if always || l.untidy {
		l.untidy = l.cfg.Cgroups.Sweep(func(name string) bool { return l.groups[name] > 0 })
	}
}
