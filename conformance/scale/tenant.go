package scale

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// The supply group whose key every tenant loads, and a meter in it.
const (
	meterDRN = "01234567897"
	SGC      = 123456
	baseDate = 2014
	kmcName  = "TEST-KMC"
)

// Tenant owns one VCM and does without the tools, over connections of his own.
type Tenant struct {
	name      string
	signs     ssh.Signer // its requests
	admin     ssh.Signer // for the VCM's sshadmin service
	prism     ssh.Signer // for the VCM's prismtoken service
	uuid      string
	endpoints map[string]string
}

// NewTenant makes a tenant's keys.
func NewTenant(name string) (*Tenant, error) {
	t := &Tenant{name: name}
	for _, k := range []*ssh.Signer{&t.signs, &t.admin, &t.prism} {
		key, err := rig.NewKey()
		if err != nil {
			return nil, err
		}
		*k = key
	}
	return t, nil
}

// Request asks for a VCM.
func (t *Tenant) Request() ([]byte, error) {
	now := time.Now().UTC().Truncate(time.Second)
	r := &request.Request{
		Kind: request.Create, ID: uuid.NewString(), Created: now, NotBefore: now.Add(-time.Minute), Expires: now.Add(24 * time.Hour),
		SSHAdminKey: t.admin.PublicKey(), RequestKey: t.signs.PublicKey(), Properties: request.Properties{Name: &t.name},
	}
	return r.Sign(t.signs)
}

// Got notes which VCM the provider made.
func (t *Tenant) Got(v *orchestrator.Vcm) {
	t.uuid, t.endpoints = v.Uuid, map[string]string{}
	for _, e := range v.Endpoints {
		t.endpoints[e.ServiceName] = e.Address
	}
}

// Centre is a test KMC with one key, and meters that hold it.
type Centre struct {
	kmc     *kmc.KMC
	public  string
	decoder []byte
}

// NewCentre makes a KMC in dir.
func NewCentre(dir string) (*Centre, error) {
	now := time.Now().UTC()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	k, err := kmc.Init(dir, kmcName, now.AddDate(0, 0, -1), now.AddDate(1, 0, 0), rand.Reader)
	if err != nil {
		return nil, err
	}
	g, err := k.AddGroup(kmc.Group{SGC: SGC, KRN: 1, KTC: "VUDK", BDT: baseDate, DKG: 4, KEN: 255, SBM: 0xffff, ULM: ^uint32(0),
		CLM: ^uint32(0), ACT: now.AddDate(0, 0, -1), Refresh: kmc.DefaultRefresh, SGN: "scale"})
	if err != nil {
		return nil, err
	}
	public, err := k.PublicKey()
	if err != nil {
		return nil, err
	}
	decoder, err := decoderKey(g.Key)
	return &Centre{kmc: k, public: public.Text(), decoder: decoder}, err
}

func decoderKey(text string) ([]byte, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	vk, err := sts.NewVendingKey(sts.DKGA04, raw)
	if err != nil {
		return nil, err
	}
	pan, err := sts.ParsePAN(meterDRN)
	if err != nil {
		return nil, err
	}
	key, err := vk.DecoderKey(sts.KeyParams{PAN: pan, EA: sts.EA(11), KT: sts.KeyType(2), SGC: SGC, KRN: 1, TI: 1, BaseDate: sts.BaseDate(baseDate)})
	if err != nil {
		return nil, err
	}
	return key.AppendBytes(nil), nil
}

// meter is a fresh one: what it accepts was vended with the centre's key.
func (c *Centre) meter() (*meter.Meter, error) {
	return meter.New(meter.Config{DRN: meterDRN, EA: 11, TCT: 2, SGC: SGC, KRN: 1, TI: 1, KT: 2, KEN: 255, BaseDate: baseDate,
		DecoderKey: c.decoder, Manufactured: time.Now().AddDate(0, 0, -30)})
}

// vend does all that a new tenant does up to the first token: takes possession,
// issues, and has a meter accept the digits.
func (t *Tenant) vend(ctx context.Context, unit ssh.PublicKey, c *Centre) error {
	s, api, err := t.Possess(ctx, unit, c)
	if err != nil {
		return err
	}
	defer s.Close()
	m := prismadmin.NewMeter()
	m.Drn, m.Ea, m.Tct, m.Sgc, m.Krn, m.Ti, m.Ken = meterDRN, 11, 2, SGC, 1, 1, 255
	r := prismadmin.NewTokenRequest()
	r.MessageId, r.Meter, r.Amount = "first", m, 102
	tokens, err := api.TokenCredit(ctx, r)
	if err != nil || len(tokens) == 0 {
		return fmt.Errorf("issue: %d tokens: %w", len(tokens), err)
	}
	return c.enter(tokens[len(tokens)-1].TokenDec)
}

func (c *Centre) enter(digits string) error {
	m, err := c.meter()
	if err != nil {
		return err
	}
	result, err := m.Enter(digits, time.Now())
	if err != nil {
		return err
	}
	if result.Code != meter.Accepted {
		return fmt.Errorf("the meter answers %s to the token", result.Code)
	}
	return nil
}

// Possess installs the tenant's service key, introduces the KMC and loads its
// key. The session stays open for the caller, who closes it.
func (t *Tenant) Possess(ctx context.Context, unit ssh.PublicKey, c *Centre) (*rig.Service, *prismadmin.PrismAdminClient, error) {
	if err := t.install(ctx, unit); err != nil {
		return nil, nil, err
	}
	s, err := rig.DialService(ctx, t.endpoints["prismtoken"], "prismtoken", t.prism, unit)
	if err != nil {
		return nil, nil, err
	}
	api := prismadmin.NewPrismAdminClient(s.Thrift())
	if err := c.load(ctx, api); err != nil {
		s.Close()
		return nil, nil, fmt.Errorf("load keys: %w", err)
	}
	return s, api, nil
}

// install puts the tenant's key at the prismtoken service.
func (t *Tenant) install(ctx context.Context, unit ssh.PublicKey) error {
	s, err := rig.DialService(ctx, t.endpoints["sshadmin"], "sshadmin", t.admin, unit)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = sshadmin.NewSshAdminClient(s.Thrift()).InstallKeys(ctx, []*sshadmin.ClientKey{
		{ServiceName: "prismtoken", ClientKey: rig.KeyLine(t.prism.PublicKey())},
	})
	return err
}

// load carries the texts between a VCM and the centre.
func (c *Centre) load(ctx context.Context, api *prismadmin.PrismAdminClient) error {
	if _, err := api.PrefSet(ctx, "ptoken.allowUnapprovedKmcPubkeys", "true"); err != nil {
		return err
	}
	if _, err := api.KmcUploadKey(ctx, c.public); err != nil {
		return err
	}
	public, err := api.SmPublicKey(ctx)
	if err != nil {
		return err
	}
	module, err := c.kmc.AddModule(public)
	if err != nil {
		return err
	}
	if _, err := c.kmc.AuthoriseAll(module.ID); err != nil {
		return err
	}
	ask, err := api.KmcGenerateRequest(ctx, kmcName)
	if err != nil {
		return err
	}
	answer, err := c.kmc.Answer(ask, time.Now())
	if err != nil {
		return err
	}
	if _, err := api.KmcUploadKlf(ctx, answer.Text); err != nil {
		return err
	}
	if p, err := api.KmcLoad(ctx, kmcName, 10); err != nil || p.Loaded != 1 || p.Remaining != 0 {
		return fmt.Errorf("%+v: %w", p, err)
	}
	_, err = api.KmcEndSession(ctx, kmcName)
	return err
}
