package isolation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Suite is one run as one user.
type Suite struct {
	Bin   string // folder that Build has filled
	Dir   string // empty folder, of a short name
	Out   io.Writer
	Short bool     // the rows and attempts that a test can wait for
	Parts []string // of the names of parts; none means all
	Rows  []string // of the matrix, by their names; none means all
	// OwnGroup starts each orchestrator in a control group of its own, as a service
	// manager does: with version 2 nobody else may be in one that is divided.
	OwnGroup bool

	// programs are those that are shipped, hostile those that can be taken over.
	programs, hostile string

	log   io.Writer
	mu    sync.Mutex
	holes []string
}

// who names the user that the platform runs as.
func who() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return fmt.Sprintf("uid %d", os.Geteuid())
}

func (s *Suite) print(format string, args ...any) { fmt.Fprintf(s.Out, format, args...) }

func (s *Suite) hole(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hole := fmt.Sprintf(format, args...); len(s.holes) < mostHoles {
		s.holes = append(s.holes, hole)
	} else if len(s.holes) == mostHoles {
		s.holes = append(s.holes, "and more, which are not listed")
	}
}

// mostHoles bounds what a person reads.
const mostHoles = 50

func (s *Suite) dir(part string) string {
	d := filepath.Join(s.Dir, part)
	_ = os.MkdirAll(d, 0o755) // what is made in it says so if that failed
	return d
}

// Run runs the suite. The error says what could not be tried; Holes what went wrong.
func (s *Suite) Run(ctx context.Context) (holes []string, err error) {
	log, err := os.Create(filepath.Join(s.Dir, "commands.log"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	s.log = log
	if err := s.choose(); err != nil {
		return nil, err
	}
	defer func() {
		if s.OwnGroup && err == nil && len(named(ownGroup())) > 0 {
			err = s.leave(ownGroup(), "")
		}
	}()
	for _, part := range s.parts() {
		if len(s.Parts) > 0 && !has(s.Parts, part.name) {
			continue
		}
		began := time.Now()
		if err := part.do(ctx); err != nil {
			return s.holes, fmt.Errorf("%s: %w", part.name, err)
		}
		s.print("isolation: %s as %s: %.1f s\n", part.name, who(), time.Since(began).Seconds())
	}
	return s.holes, nil
}

// ownGroup is the control group of each orchestrator with OwnGroup.
func ownGroup() string { return fmt.Sprintf("isolation-%d", os.Getpid()) }

func (s *Suite) choose() (err error) {
	s.programs, s.hostile = s.Bin, hostileDir(s.Bin)
	if !s.OwnGroup {
		return nil
	}
	if s.programs, err = s.wrapped(s.Bin, "own-group", "enter", ownGroup()); err != nil {
		return err
	}
	s.hostile, err = s.wrapped(s.hostile, "own-group-hostile", "enter", ownGroup())
	return err
}

type part struct {
	name string
	do   func(context.Context) error
}

func (s *Suite) parts() []part {
	return []part{{"matrix", s.matrix}, {"report", s.report}, {"census", s.descriptors}, {"canary", s.canary}, {"cores", s.cores}, {"tenants", s.tenants}, {"kills", s.kills}, {"resources", s.resources}, {"groups", s.groups}, {"startup", s.startup}, {"kernel", s.kernel}}
}

// cgroups reports whether the orchestrator can give control groups: a VCM tells.
func (p *platform) cgroups(ctx context.Context) bool {
	v, err := p.create(ctx, "probe", "")
	if err != nil {
		return false
	}
	if err := v.start(ctx); err != nil {
		return false
	}
	ok := !has(v.lacking(), cgroup)
	return v.drop(ctx) == nil && ok
}
