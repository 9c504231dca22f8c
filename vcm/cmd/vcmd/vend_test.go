package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

const (
	testSGC      = 123456
	testKMC      = "TEST-KMC"
	testUser     = "till"
	testPassword = "Passw0rd"
)

// equip does what a tenant does before its first token: keys of the services,
// a user, vending keys from a KMC.
func (r *rig) equip() {
	t, ctx := r.t, r.t.Context()
	t.Helper()
	for service := range r.keys {
		r.keys[service] = newKey(t)
	}
	admin := sshadmin.NewSshAdminClient(r.mustDial(vcmcontrol.ServiceSSHAdmin, r.admin).Thrift())
	var install []*sshadmin.ClientKey
	for service, key := range r.keys {
		install = append(install, &sshadmin.ClientKey{ServiceName: service, ClientKey: keyLine(key.PublicKey())})
	}
	if _, err := admin.InstallKeys(ctx, install); err != nil {
		t.Fatal(err)
	}
	p := prismadmin.NewPrismAdminClient(r.mustDial(vcmcontrol.ServicePrismToken, r.keys[vcmcontrol.ServicePrismToken]).Thrift())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := p.UserCreate(ctx, testUser, []string{string(accounts.RoleAPI), string(accounts.RoleIssueAny)}, testPassword, 0)
	must(err)
	_, err = p.PrefSet(ctx, accounts.PrefAllowUnapprovedKMC, "True")
	must(err)
	now := time.Now()
	centre, err := kmc.Init(t.TempDir(), testKMC, now.AddDate(-1, 0, 0), now.AddDate(5, 0, 0), rand.Reader)
	must(err)
	record, err := p.SmPublicKey(ctx)
	must(err)
	module, err := centre.AddModule(record)
	must(err)
	_, err = centre.AddGroup(kmc.Group{SGC: testSGC, KRN: 1, KTC: "VUDK", BDT: 2014, DKG: 4, KEN: 255, SBM: 0xFFFF,
		ULM: 0xFFFFFFFF, CLM: 0xFFFFFFFF, ACT: now.AddDate(-1, 0, 0), Refresh: 900, SGN: "TEST"})
	must(err)
	_, err = centre.AuthoriseAll(module.ID)
	must(err)
	key, err := centre.PublicKey()
	must(err)
	_, err = p.KmcUploadKey(ctx, key.Text())
	must(err)
	request, err := p.KmcGenerateRequest(ctx, testKMC)
	must(err)
	answer, err := centre.Answer(request, now)
	must(err)
	_, err = p.KmcUploadKlf(ctx, answer.Text)
	must(err)
	for remaining := int32(1); remaining > 0; {
		progress, err := p.KmcLoad(ctx, testKMC, 10)
		must(err)
		if progress.Failure != "" {
			t.Fatal(progress.Failure)
		}
		remaining = progress.Remaining
	}
	_, err = p.KmcEndSession(ctx, testKMC)
	must(err)
}

// till is a vending client that signs in again after each break.
type till struct {
	r     *rig
	conn  *tls.Conn
	api   *prismtoken1.TokenApiClient
	token string
}

func (c *till) connect(ctx context.Context) error {
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", c.r.address(vcmcontrol.ServiceTokenAPI))
	if err != nil {
		return err
	}
	conf := &thrift.TConfiguration{SocketTimeout: 5 * time.Second}
	trans := thrift.NewTFramedTransportConf(thrift.NewTBufferedTransport(thrift.NewTSocketFromConnConf(conn, conf), 4096), conf)
	c.conn, c.api = conn.(*tls.Conn), prismtoken1.NewTokenApiClientFactory(trans, thrift.NewTBinaryProtocolFactoryConf(conf))
	res, err := c.api.SignInWithPassword(ctx, "signin", accounts.Realm, testUser, testPassword, prismtoken1.NewSessionOptions())
	if err != nil {
		c.hangUp()
		return err
	}
	c.token = res.AccessToken
	return nil
}

func (c *till) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn = nil
}

func (c *till) vend(ctx context.Context, id, drn string) (*prismtoken1.Token, error) {
	if c.conn == nil {
		if err := c.connect(ctx); err != nil {
			return nil, err
		}
	}
	out, err := c.api.IssueCreditToken(ctx, id, c.token, &prismtoken1.MeterConfigIn{
		Drn: drn, Ea: 11, Tct: 2, Sgc: testSGC, Krn: 1, Ti: 1, Ken: 255, Doe: "0000"}, 0, 102, 0, 0)
	if err != nil {
		c.hangUp()
		return nil, err
	}
	return out[0], nil
}

// drn is a meter number with its check digit.
func drn(n int) string {
	s := fmt.Sprintf("07%08d", n)
	sum := 0
	for i := range s {
		d := int(s[len(s)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return s + fmt.Sprint((10-sum%10)%10)
}

// Kill -9 in the middle of vending: no token identifier leaves twice for a
// meter, and every token that left is in the audit log.
func TestVendingSurvivesKill9(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.isolate()
	p := r.launch()
	p.mustBeReady()
	r.equip()

	var mu sync.Mutex
	issued := map[string]string{} // PAN and TID to token
	ctx, cancel := context.WithCancel(t.Context())
	var tills sync.WaitGroup
	for w := range 6 {
		tills.Go(func() {
			c := &till{r: r}
			defer c.hangUp()
			for i := 0; ctx.Err() == nil; i++ {
				token, err := c.vend(ctx, fmt.Sprintf("%d-%d", w, i), drn(1+i%3))
				if err != nil {
					time.Sleep(5 * time.Millisecond) // down, or going down
					continue
				}
				at := fmt.Sprintf("%s %06X", token.Pan, token.Tid)
				mu.Lock()
				if before, twice := issued[at]; twice {
					t.Errorf("meter and TID %s: tokens %s and %s", at, before, token.TokenDec)
				}
				issued[at] = token.TokenDec
				mu.Unlock()
			}
		})
	}
	for range 4 {
		time.Sleep(300 * time.Millisecond)
		p.kill()
		p = r.launch()
		p.mustBeReady()
	}
	time.Sleep(300 * time.Millisecond)
	cancel()
	tills.Wait()
	if len(issued) < 20 {
		t.Errorf("only %d tokens were issued: the test shows little", len(issued))
	}
	r.checkIssued(issued)

	var mode vcmcontrol.Mode
	if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodMode, nil, &mode); err != nil || !mode.Operational {
		t.Errorf("mode %+v, %v", mode, err)
	}
	if _, err := p.conn.Call(t.Context(), vcmcontrol.MethodStop, vcmcontrol.Stop{Drain: 1000}, nil); err == nil {
		t.Error("an operational VCM was stopped without force")
	}
	p.stop(vcmcontrol.Stop{Force: true, Drain: 1000})
}

// checkIssued looks for each token in the exported log.
func (r *rig) checkIssued(issued map[string]string) {
	t := r.t
	t.Helper()
	mon := monitor.NewMonitorClient(r.mustDial(vcmcontrol.ServiceMonitor, r.keys[vcmcontrol.ServiceMonitor]).Thrift())
	key := r.logKey(mon)
	logged := map[string]bool{}
	for from, more := int64(0), true; more; {
		e, err := mon.LogExport(t.Context(), from, false)
		if err != nil {
			t.Fatal(err)
		}
		v, err := auditlog.Verify(e.Text, key)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range v.Records {
			logged[rec.Subject+" "+rec.Detail["tid"]] = true
		}
		from, more = e.LastSeq+1, e.More
	}
	for at := range issued {
		if !logged[at] {
			t.Errorf("the token for %s is not in the audit log", at)
		}
	}
}
