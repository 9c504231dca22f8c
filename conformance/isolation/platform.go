package isolation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
)

const module = "github.com/tesserae-hsm/tesserae/"

// Build makes the programs of a platform in dir: those that are shipped, and in
// its folder hostile the two that can be taken over, beside links to the others.
func Build(ctx context.Context, dir string) error {
	if err := rig.Build(ctx, dir); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", dir+"/", module+"conformance/cmd/isolation")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return buildHostile(ctx, dir)
}

// hostileDir is the folder of the programs that can be taken over.
func hostileDir(bin string) string { return filepath.Join(bin, "hostile") }

func buildHostile(ctx context.Context, bin string) error {
	dir := hostileDir(bin)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "hostile", "-o", dir+"/",
		module+"vcm/cmd/vcmd", module+"orchestrator/cmd/orchestratord")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	entries, err := os.ReadDir(bin)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := os.Symlink(filepath.Join("..", e.Name()), filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// platform is a unit that runs, with the provider's own client.
type platform struct {
	*rig.Rig
	direct       *rig.Direct
	hsmd         *rig.Daemon
	orchestrator *rig.Daemon
	log          io.Writer
	made         int
}

// open makes a unit in dir that may have many VCMs.
func open(ctx context.Context, bin, dir string, log io.Writer, flags ...string) (_ *platform, err error) {
	p := &platform{Rig: rig.New(bin, dir, log), log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Stop())
		}
	}()
	if err := p.Maker(ctx); err != nil {
		return nil, err
	}
	if p.hsmd, p.orchestrator, err = p.Unit(ctx, flags...); err != nil {
		return nil, err
	}
	if err := p.EnrolProvider(ctx); err != nil {
		return nil, err
	}
	for _, l := range [][2]string{{"speed", "HSMSpeed2"}, {"max-active-vcms", "100"}} {
		if err := p.Licence(ctx, l[0], l[1]); err != nil {
			return nil, err
		}
	}
	p.direct, err = p.Direct(ctx)
	return p, err
}

// provider calls fn with a session of the orchestrator service.
func (p *platform) provider(ctx context.Context, fn func(*rig.Hosting) error) error {
	h, err := p.direct.Dial(ctx)
	if err != nil {
		return err
	}
	defer h.Close()
	return fn(h)
}

// vcm is one VCM of the suite.
type vcm struct {
	p       *platform
	uuid    string
	file    []byte // the VCM file as of its creation
	control string // the port that obeys the attacker
	process rig.Process
	report  *orchestrator.Vcm
}

// create makes a VCM that lacks the layers that without names.
func (p *platform) create(ctx context.Context, name, without string, flags ...string) (*vcm, error) {
	p.made++
	name = fmt.Sprintf("%s-%d", name, p.made)
	file, err := p.Request(ctx, name, flags...)
	if err != nil {
		return nil, err
	}
	request, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	v := &vcm{p: p}
	err = p.provider(ctx, func(h *rig.Hosting) error {
		made, err := h.Create(ctx, request, &orchestrator.CreateChoices{Name: name})
		if err == nil {
			v.report, v.uuid, v.file = made.Vcm, made.Vcm.Uuid, made.VcmFile
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	for _, e := range v.report.Endpoints {
		if e.ServiceName == "smapi" {
			v.control = e.Address
		}
	}
	if without != "" {
		err = os.WriteFile(filepath.Join(v.dir(), ".without"), []byte(without), 0o644)
	}
	return v, err
}

func (v *vcm) dir() string { return v.p.Path("platform", "vcms", v.uuid) }

// start starts the VCM and finds its process.
func (v *vcm) start(ctx context.Context) error {
	before := v.p.VCMs()
	err := v.p.provider(ctx, func(h *rig.Hosting) (err error) {
		v.report, err = h.Start(ctx, v.uuid, nil, 30)
		return err
	})
	if err != nil {
		return fmt.Errorf("start of VCM %s: %w", v.uuid, err)
	}
	for _, now := range v.p.VCMs() {
		if !slices.Contains(before, now) {
			v.process = now
			return nil
		}
	}
	return fmt.Errorf("VCM %s has started, but there is no process of it", v.uuid)
}

func (v *vcm) stop(ctx context.Context) error {
	return v.p.provider(ctx, func(h *rig.Hosting) error {
		_, err := h.Stop(ctx, v.uuid, true, 10)
		return err
	})
}

// restart starts the VCM anew after its process has been killed.
func (v *vcm) restart(ctx context.Context) error {
	if err := v.stop(ctx); err != nil {
		return err
	}
	return v.start(ctx)
}

// drop stops and deletes the VCM.
func (v *vcm) drop(ctx context.Context) error {
	if err := v.stop(ctx); err != nil {
		return err
	}
	return v.p.provider(ctx, func(h *rig.Hosting) error { return h.Remove(ctx, v.uuid, true) })
}

// lacking are the lines of the VCM's report that are not enforced.
func (v *vcm) lacking() (out []string) {
	for _, c := range v.report.Isolation {
		if c.Got != "enforced" {
			out = append(out, c.Control)
		}
	}
	return out
}

// line is a line of the VCM's report.
func (v *vcm) line(control string) string {
	for _, c := range v.report.Isolation {
		if c.Control == control {
			return strings.TrimSpace(c.Got + " " + c.Reason + " " + c.Proof)
		}
	}
	return "no such line"
}
