package isolation_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	t      *testing.T
	r      *rig.Rig
	device *hsmapi.Client
	uuid   string
}

// open tries to have the module open the partition with a share, as the
// orchestrator would for a VCM's process, and to take the key.
func (p *provider) open(share []byte) error {
	p.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	there := os.NewFile(uintptr(fds[0]), "module")
	err = p.device.Attach(p.t.Context(), hsmapi.Attach{UUID: p.uuid, Share: share}, there)
	_ = there.Close()
	if err != nil {
		_ = unix.Close(fds[1])
		return err
	}
	c, err := hsmapi.NewChannel(os.NewFile(uintptr(fds[1]), "vcm"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	_, key, err := c.Open(p.t.Context())
	if err != nil {
		return err
	}
	key.Destroy()
	return nil
}

func (p *provider) refused(what string, err error) {
	p.t.Helper()
	if err == nil {
		p.t.Errorf("%s opens the partition", what)
	}
	if k := errkind.Of(err); k != errkind.Refused && k != errkind.Integrity && k != errkind.Invalid {
		p.t.Errorf("%s: %v", what, err)
	}
}

func (p *provider) run(want int, role rig.Role, tool string, args ...string) {
	p.t.Helper()
	if _, err := p.r.RunCode(p.t.Context(), want, role, tool, args...); err != nil {
		p.t.Fatal(err)
	}
}

// withoutTheTenant tries everything that the provider has.
func (p *provider) withoutTheTenant(unitKey string) {
	t := p.t
	t.Helper()
	p.run(3, rig.Provider, "vcmadmin", "start", p.uuid)
	p.refused("no share", p.open(nil))
	garbage := make([]byte, 300)
	_, _ = rand.Read(garbage)
	p.refused("garbage", p.open(garbage))
	// A share that he makes himself, properly sealed to the unit.
	own, err := tenantshare.Generate()
	if err != nil {
		t.Fatal(err)
	}
	esn, err := p.r.ESN()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	sealed, err := tenantshare.Seal(unitKey, own, tenantshare.Use{ESN: esn, UUID: p.uuid, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	p.refused("a share of his own", p.open(sealed))
	ownKey, err := own.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"", ownKey} {
		_, err := p.device.Protect(t.Context(), hsmapi.Protect{UUID: p.uuid, ShareKey: key})
		p.refused("other protection", err)
		_, err = p.device.Protect(t.Context(), hsmapi.Protect{UUID: p.uuid, ShareKey: key, Share: sealed})
		p.refused("other protection with his share", err)
		_, err = p.device.Create(t.Context(), hsmapi.CreatePartition{UUID: p.uuid, ShareKey: key})
		p.refused("creation anew", err)
	}
	// Every file and every base64 text in them, taken for a share.
	tried := 0
	for _, dir := range []string{p.r.Path("platform"), p.r.Path("provider"), p.r.Path("mail")} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if r, err := request.Parse(text); err == nil && len(r.Share) > 0 {
				p.refused(path, p.open(r.Share))
			}
			if len(text) < 4096 {
				p.refused(path, p.open(text))
				tried++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if tried < 3 {
		t.Errorf("only %d files were tried", tried)
	}
}

func TestTheProviderCannotStartARestrictedVCM(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	dir, err := os.MkdirTemp("", "tiso-")
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	r := rig.New(bin, dir, &said)
	t.Cleanup(func() {
		if err := errors.Join(r.Stop(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(said.String())
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	must(r.Maker(ctx))
	_, _, err = r.Unit(ctx)
	must(err)
	must(r.EnrolProvider(ctx))
	create, err := r.Request(ctx, "restricted", "--restrict-startup")
	must(err)
	p := &provider{t: t, r: r}
	p.device, err = hsmapi.Dial(ctx, r.Path("hsmd.sock"))
	must(err)
	defer p.device.Close()
	p.run(0, rig.Provider, "vcmadmin", "create", "--request", create, "--outdir", r.Path("mail"), "restricted")
	files, err := filepath.Glob(r.Path("mail", "*.vcm"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	p.uuid = strings.TrimSuffix(filepath.Base(files[0]), ".vcm")
	id, err := p.device.Identity(ctx)
	must(err)
	p.withoutTheTenant(id.EncryptionKey)

	// With the tenant's start request it starts.
	start := r.Mail("start.req")
	p.run(0, rig.Tenant, "hsmadmin", "vcm", "start", "--config", files[0], "--maker-root", r.MakerRoot(), "--request-file", start, "--request-validity", "60")
	p.run(0, rig.Provider, "vcmadmin", "start", "--request", start, p.uuid)
	text, err := os.ReadFile(start)
	must(err)
	signed, err := request.Parse(text)
	must(err)
	if err := p.open(signed.Share); err == nil {
		t.Error("a second process gets the key of a running VCM")
	}
	p.run(0, rig.Provider, "vcmadmin", "stop", "--force", "--yes", p.uuid)

	// Once its validity is over it is as good as none, for the orchestrator and
	// for the module itself.
	_, err = p.device.SetTime(ctx, hsmapi.SetTime{Time: signed.Expires.Add(time.Minute)})
	must(err)
	p.run(3, rig.Provider, "vcmadmin", "start", "--request", start, p.uuid)
	p.withoutTheTenant(id.EncryptionKey)
}
