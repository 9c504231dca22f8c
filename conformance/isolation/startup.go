package isolation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// provider is one who does not keep to the orchestrator's rules. He has: root on
// the host and with it every file of the platform, his own keys, every request
// and VCM file that passed through his hands, the socket of the physical module,
// and a program of his own that speaks to it as the orchestrator does. He does not
// have the inside of the physical module (hsmd's state folder and memory), nor the
// tenant's host.
type provider struct {
	suite  *Suite
	r      *rig.Rig
	device *hsmapi.Client
	uuid   string
	tried  int
}

// open tries to have the module open the partition with a share, as the
// orchestrator would for a VCM's process, and to take the key.
func (p *provider) open(ctx context.Context, share []byte) error {
	p.tried++
	c, err := p.attach(ctx, hsmapi.Attach{UUID: p.uuid, Share: share})
	if err != nil {
		return err
	}
	defer c.Close()
	return take(ctx, c)
}

// take tries to take the key over a channel.
func take(ctx context.Context, c *hsmapi.Channel) error {
	_, key, err := c.Open(ctx)
	if err != nil {
		return err
	}
	key.Destroy()
	return nil
}

// attach returns the VCM's end of a device channel.
func (p *provider) attach(ctx context.Context, in hsmapi.Attach) (*hsmapi.Channel, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	there := os.NewFile(uintptr(fds[0]), "module")
	err = p.device.Attach(ctx, in, there)
	_ = there.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		return nil, err
	}
	return hsmapi.NewChannel(os.NewFile(uintptr(fds[1]), "vcm"))
}

// goOn has the provider pass for a VCM that has the key already and whose unit was
// away: such a channel needs no share.
func (p *provider) goOn(ctx context.Context) error {
	c, err := p.attach(ctx, hsmapi.Attach{UUID: p.uuid, Resume: true})
	if err != nil {
		return err
	}
	defer c.Close()
	p.refused("a channel to go on with", take(ctx, c))
	ticket := make([]byte, 32)
	_, _ = rand.Read(ticket)
	_, err = c.Resume(ctx, ticket)
	p.refused("a ticket of his own", err)
	p.tried += 2
	return nil
}

// refused is a hole unless the module itself has said no.
func (p *provider) refused(what string, err error) {
	if err == nil {
		p.suite.hole("restrict-startup: %s opens the partition", what)
		return
	}
	if k := errkind.Of(err); k != errkind.Refused && k != errkind.Integrity && k != errkind.Invalid {
		p.suite.hole("restrict-startup: %s was not refused but failed: %v", what, err)
	}
}

func (p *provider) run(ctx context.Context, want int, role rig.Role, tool string, args ...string) error {
	_, err := p.r.RunCode(ctx, want, role, tool, args...)
	return err
}

// withoutTheTenant tries everything that the provider has.
func (p *provider) withoutTheTenant(ctx context.Context, unitKey string) error {
	if err := p.run(ctx, 3, rig.Provider, "vcmadmin", "start", p.uuid); err != nil {
		return err
	}
	p.refused("no share", p.open(ctx, nil))
	garbage := make([]byte, 300)
	_, _ = rand.Read(garbage)
	p.refused("garbage", p.open(ctx, garbage))
	// A share that he makes himself, properly sealed to the unit.
	own, err := tenantshare.Generate()
	if err != nil {
		return err
	}
	esn, err := p.r.ESN()
	if err != nil {
		return err
	}
	now := time.Now().Truncate(time.Second)
	sealed, err := tenantshare.Seal(unitKey, own, tenantshare.Use{ESN: esn, UUID: p.uuid, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
	if err != nil {
		return err
	}
	p.refused("a share of his own", p.open(ctx, sealed))
	if err := p.goOn(ctx); err != nil {
		return err
	}
	ownKey, err := own.PublicKey()
	if err != nil {
		return err
	}
	for _, key := range []string{"", ownKey} {
		_, err := p.device.Protect(ctx, hsmapi.Protect{UUID: p.uuid, ShareKey: key})
		p.refused("other protection", err)
		_, err = p.device.Protect(ctx, hsmapi.Protect{UUID: p.uuid, ShareKey: key, Share: sealed})
		p.refused("other protection with his share", err)
		_, err = p.device.Create(ctx, hsmapi.CreatePartition{UUID: p.uuid, ShareKey: key})
		p.refused("creation anew", err)
		p.tried += 3
	}
	files := 0
	for _, dir := range []string{p.r.Path("platform"), p.r.Path("provider"), p.r.Path("mail")} {
		n, err := p.everyFile(ctx, dir)
		if err != nil {
			return err
		}
		files += n
	}
	if files < 3 {
		p.suite.hole("restrict-startup: only %d files were tried", files)
	}
	return nil
}

// everyFile takes every file below dir, and what requests among them carry, for a
// share.
func (p *provider) everyFile(ctx context.Context, dir string) (files int, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if r, err := request.Parse(text); err == nil && len(r.Share) > 0 {
			p.refused(path, p.open(ctx, r.Share))
		}
		if len(text) < 4096 {
			p.refused(path, p.open(ctx, text))
			files++
		}
		return nil
	})
	return files, err
}

// startup has the provider try to start, or to open, a VCM whose tenant reserves
// that to himself (restrict-startup).
func (s *Suite) startup(ctx context.Context) (err error) {
	r := rig.New(s.programs, s.dir("startup"), s.log)
	defer func() { err = errors.Join(err, r.Stop()) }()
	if err := r.Maker(ctx); err != nil {
		return err
	}
	if _, _, err := r.Unit(ctx); err != nil {
		return err
	}
	if err := r.EnrolProvider(ctx); err != nil {
		return err
	}
	create, err := r.Request(ctx, "restricted", "--restrict-startup")
	if err != nil {
		return err
	}
	p := &provider{suite: s, r: r}
	if p.device, err = hsmapi.Dial(ctx, r.Path("hsmd.sock")); err != nil {
		return err
	}
	defer p.device.Close()
	if err := p.run(ctx, 0, rig.Provider, "vcmadmin", "create", "--request", create, "--outdir", r.Path("mail"), "restricted"); err != nil {
		return err
	}
	files, err := filepath.Glob(r.Path("mail", "*.vcm"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("%d VCM files: %v, %v", len(files), files, err)
	}
	p.uuid = strings.TrimSuffix(filepath.Base(files[0]), ".vcm")
	id, err := p.device.Identity(ctx)
	if err != nil {
		return err
	}
	if err := p.withoutTheTenant(ctx, id.EncryptionKey); err != nil {
		return err
	}
	before := p.tried

	// Positive control: with the tenant's start request it starts.
	start := r.Mail("start.req")
	if err := p.run(ctx, 0, rig.Tenant, "hsmadmin", "vcm", "start", "--config", files[0], "--maker-root", r.MakerRoot(),
		"--request-file", start, "--request-validity", "60"); err != nil {
		return err
	}
	if err := p.run(ctx, 0, rig.Provider, "vcmadmin", "start", "--request", start, p.uuid); err != nil {
		return err
	}
	text, err := os.ReadFile(start)
	if err != nil {
		return err
	}
	signed, err := request.Parse(text)
	if err != nil {
		return err
	}
	if err := p.open(ctx, signed.Share); err == nil {
		s.hole("restrict-startup: a second process gets the key of a running VCM")
	}
	if err := p.run(ctx, 0, rig.Provider, "vcmadmin", "stop", "--force", "--yes", p.uuid); err != nil {
		return err
	}
	// The module's part of the control: with a valid share it is this program that
	// gets the key, so what was refused above was refused for want of one.
	if err := p.open(ctx, signed.Share); err != nil {
		s.hole("restrict-startup: that the module refuses proves nothing: it refuses the tenant's share, too: %v", err)
	}

	// Once its validity is over it is as good as none, for the orchestrator and
	// for the module itself.
	// The module sees a moment later that the process is gone.
	err = errkind.Errorf(errkind.Mode, "not tried")
	for end := time.Now().Add(5 * time.Second); errkind.Is(err, errkind.Mode) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, err = p.device.SetTime(ctx, hsmapi.SetTime{Time: signed.Expires.Add(time.Minute)})
	}
	if err != nil {
		return err
	}
	if err := p.run(ctx, 3, rig.Provider, "vcmadmin", "start", "--request", start, p.uuid); err != nil {
		return err
	}
	p.tried = 0
	if err := p.withoutTheTenant(ctx, id.EncryptionKey); err != nil {
		return err
	}
	s.print("isolation: restrict-startup: the provider with all his files: %d ways refused; with the tenant's start request it starts (control); %d ways refused once that has expired\n",
		before, p.tried)
	return nil
}
