package isolation

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
)

// report compares what VCMs of the shipped programs say about their isolation
// with what the host sees, and looks at every place where it is told.
func (s *Suite) report(ctx context.Context) (err error) {
	for _, program := range []string{"vcmd", "orchestratord"} {
		info, err := buildinfo.ReadFile(filepath.Join(s.Bin, program))
		if err != nil {
			return err
		}
		for _, setting := range info.Settings {
			if setting.Key == "-tags" {
				s.hole("%s is built with tags %s", program, setting.Value)
			}
		}
	}
	p, err := open(ctx, s.programs, s.dir("report"), s.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	var vcms []*vcm
	for _, tenant := range []string{"a", "b"} {
		if err := p.as(tenant); err != nil {
			return err
		}
		v, err := p.create(ctx, tenant, "")
		if err != nil {
			return err
		}
		if err := v.start(ctx); err != nil {
			return err
		}
		vcms = append(vcms, v)
	}
	want := "rootless"
	if os.Geteuid() == 0 {
		want = "full"
		if !p.cgroups(ctx) {
			want = "rootless"
		}
		for i, v := range vcms {
			s.outside(v, vcms[1-i])
		}
	}
	s.print("\nWhat a VCM reports, as %s:\n", who())
	for _, c := range vcms[0].report.Isolation {
		s.print("  %-15s %-9s %s\n", c.Control, c.Got, strings.TrimSpace(c.Reason+" "+c.Proof))
	}
	if level := vcms[0].report.IsolationLevel; level != want {
		s.hole("the level is %s instead of %s: lacking %v", level, want, vcms[0].lacking())
	}
	return s.told(ctx, p, vcms[1], want)
}

// outside looks at a VCM from the host, as root.
func (s *Suite) outside(v, other *vcm) {
	proc := func(name string) string { return fmt.Sprintf("/proc/%d/%s", v.process.PID, name) }
	status, err := os.ReadFile(proc("status"))
	if err != nil {
		s.hole("outside: %v", err)
		return
	}
	field := func(text []byte, name string) string {
		_, rest, _ := strings.Cut("\n"+string(text), "\n"+name+":")
		line, _, _ := strings.Cut(rest, "\n")
		return strings.Join(strings.Fields(line), " ")
	}
	const none = "0000000000000000"
	for name, want := range map[string]string{
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "2", "Groups": "",
	} {
		if got := field(status, name); got != want {
			s.hole("outside: %s of a VCM is %q instead of %q", name, got, want)
		}
	}
	uids := strings.Fields(field(status, "Uid"))
	otherStatus, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", other.process.PID))
	if slices.Contains(uids, "0") || field(otherStatus, "Uid") == field(status, "Uid") {
		s.hole("outside: the uids of VCMs are %v and %s", uids, field(otherStatus, "Uid"))
	}
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
		own, err := os.Readlink(proc("ns/" + ns))
		host, _ := os.Readlink("/proc/self/ns/" + ns)
		neighbour, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", other.process.PID, ns))
		if err != nil || own == host || own == neighbour {
			s.hole("outside: the %s namespace %s is not the VCM's own: %v", ns, own, err)
		}
	}
	names := func(dir string) (out []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			s.hole("outside: %v", err)
		}
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	if got := names(proc("root/")); !slices.Equal(got, []string{"data"}) {
		s.hole("outside: the root of a VCM holds %v", got)
	}
	if got := names(proc("root/data")); !slices.Equal(got, []string{"store.log", "store.new"}) {
		s.hole("outside: the data directory of a VCM holds %v", got)
	}
	if mounts, err := os.ReadFile(proc("mounts")); err != nil || strings.Count(string(mounts), "\n") != 2 {
		s.hole("outside: a VCM has these mounts: %s %v", mounts, err)
	}
	if environ, err := os.ReadFile(proc("environ")); err != nil || len(environ) > 0 {
		s.hole("outside: a VCM has an environment: %q %v", environ, err)
	}
	s.census(v)
	s.member(v)
}

// member checks that the VCM is in control groups of its own.
func (s *Suite) member(v *vcm) {
	if has(v.lacking(), cgroup) {
		return
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", v.process.PID))
	if err != nil {
		s.hole("outside: %v", err)
	}
	for _, controller := range []string{"memory", "pids", "cpu"} {
		found := false
		for line := range strings.SplitSeq(string(text), "\n") {
			f := strings.SplitN(line, ":", 3)
			found = found || len(f) == 3 && strings.HasSuffix(f[2], "/"+v.uuid) &&
				(f[1] == "" || strings.Contains(","+f[1]+",", ","+controller+","))
		}
		if !found {
			s.hole("outside: the VCM is in no group of its own for %s: %s", controller, text)
		}
	}
}

// told looks at the places where a VCM's isolation is told.
func (s *Suite) told(ctx context.Context, p *platform, v *vcm, level string) error {
	var file []byte
	err := p.provider(ctx, func(h *rig.Hosting) (err error) {
		file, err = h.VcmFile(ctx, v.uuid)
		return err
	})
	if err != nil {
		return err
	}
	if !strings.Contains(string(file), "\nIsolation-Level: "+level+"\n") || !strings.Contains(string(file), "landlock") {
		s.hole("the VCM file does not tell the isolation of the last start:\n%s", file)
	}
	path := p.Mail("isolation.vcm")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		return err
	}
	// The unit's signature over it: the tenant's tool accepts the file, and does
	// not accept it with another level.
	enrol := func(name string) (rig.Outcome, error) {
		return p.Try(ctx, rig.Tenant, "hsmadmin", "vcm", "enroll", "--config", name, "--maker-root", p.MakerRoot())
	}
	forged := p.Mail("forged.vcm")
	if err := os.WriteFile(forged, []byte(strings.Replace(string(file), "Isolation-Level: "+level, "Isolation-Level: other", 1)), 0o600); err != nil {
		return err
	}
	if out, err := enrol(forged); err != nil || out.Code != 7 {
		s.hole("a VCM file with another level is accepted: exit code %d, %v", out.Code, err)
	}
	if out, err := enrol(path); err != nil || out.Code != 0 {
		s.hole("the VCM file of a started VCM is not accepted: %s %v", out.All, err)
	}
	info, err := p.Run(ctx, rig.Tenant, "hsmadmin", "vcm", "info")
	if err != nil {
		return err
	}
	if !strings.Contains(info, level) {
		s.hole("the tenant is not told the level:\n%s", info)
	}
	// The tenant's own log, signed by the VCM, tells it too: the provider cannot forge that one.
	log := p.Mail("log")
	if err := os.MkdirAll(log, 0o700); err != nil {
		return err
	}
	if _, err := p.Run(ctx, rig.Tenant, "hsmadmin", "vcm", "logs", "export", "--outdir", log); err != nil {
		return err
	}
	pieces, err := filepath.Glob(filepath.Join(log, "*"))
	if err != nil || len(pieces) == 0 {
		return fmt.Errorf("no log was exported: %v", err)
	}
	text, err := os.ReadFile(pieces[0])
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), "isolation.landlock") {
		s.hole("the VCM's audit log does not tell its isolation")
	}
	if err := s.metrics(ctx, p, v, level); err != nil {
		return err
	}
	// Back to the provider's own tools.
	if err := p.EnrolProvider(ctx); err != nil {
		return err
	}
	shown, err := p.Run(ctx, rig.Provider, "vcmadmin", "show", "--isolation", v.uuid)
	if err != nil {
		return err
	}
	for _, c := range v.report.Isolation {
		line := regexp.MustCompile(`(?m)^.*\b` + c.Control + `\b.*\b` + c.Got + `\b`)
		if !line.MatchString(shown) {
			s.hole("vcmadmin show --isolation has no line %s %s:\n%s", c.Control, c.Got, shown)
		}
		if !strings.Contains(string(text), "isolation."+c.Control) {
			s.hole("the VCM's audit log has no line %s", c.Control)
		}
		if !strings.Contains(string(file), c.Control) {
			s.hole("the VCM file has no line %s", c.Control)
		}
	}
	s.print("isolation: level %s is in the signed VCM file, in 'hsmadmin vcm info', in the VCM's log, in the metrics and in 'vcmadmin show'\n", level)
	return nil
}
