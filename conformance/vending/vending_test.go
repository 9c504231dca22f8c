package vending_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/conformance/vending/standin"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

func config(t *testing.T, s *standin.Server) vending.Config {
	t.Helper()
	trust, err := vending.ParseTrust(s.Certificate, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return vending.Config{Address: s.Address, Trust: trust, Timeout: 10 * time.Second}
}

func meterConfig(drn string, ea int16) *prismtoken1.MeterConfigIn {
	m := prismtoken1.NewMeterConfigIn()
	m.Drn, m.Ea, m.Tct, m.Sgc, m.Krn, m.Ti, m.Ken = drn, ea, 2, 201457, 1, 1, 255
	return m
}

// virtualMeter is the meter that meterConfig describes.
func virtualMeter(t *testing.T, m *prismtoken1.MeterConfigIn) *meter.Meter {
	t.Helper()
	vk, err := sts.NewVendingKey(sts.DKGA04, []byte(standin.VendingKey))
	if err != nil {
		t.Fatal(err)
	}
	pan, err := sts.ParsePAN(m.Drn)
	if err != nil {
		t.Fatal(err)
	}
	key, err := vk.DecoderKey(sts.KeyParams{PAN: pan, EA: sts.EA(m.Ea), KT: sts.DUTK, SGC: sts.SGC(m.Sgc), KRN: sts.KRN(m.Krn), TI: sts.TI(m.Ti), BaseDate: 2014})
	if err != nil {
		t.Fatal(err)
	}
	v, err := meter.New(meter.Config{
		DRN: m.Drn, EA: int(m.Ea), TCT: int(m.Tct), SGC: uint32(m.Sgc), KRN: int(m.Krn), TI: int(m.Ti), KT: 2, KEN: int(m.Ken),
		BaseDate: 2014, DecoderKey: key.AppendBytes(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestClient(t *testing.T) {
	t.Parallel()
	s := standin.Start(t)
	ctx := t.Context()
	c, err := vending.Dial(ctx, config(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SignIn(ctx, standin.User, "wrong"); !errkind.Is(err, errkind.Unauthorised) || vending.ErrorCode(err) != "ESignin.Authentication" {
		t.Errorf("wrong password: %v", err)
	}
	if err := c.SignIn(ctx, standin.User, standin.Password); err != nil {
		t.Fatal(err)
	}
	m := meterConfig("00000000000", 11)
	tokens, err := c.API.IssueCreditToken(ctx, "m-1", c.Token, m, 0, 102, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	v := virtualMeter(t, m)
	r, err := v.Enter(tokens[0].TokenDec, time.Now())
	if err != nil || !r.Accepted || r.Text != "10.2 kWh" {
		t.Errorf("the meter says %s, %v", r, err)
	}
	_, err = c.API.FetchTokenResult_(ctx, "m-2", c.Token, "nothing")
	if err := vending.Error("fetch", err); !errkind.Is(err, errkind.NotFound) || !strings.Contains(err.Error(), "ECacheMiss") {
		t.Errorf("fetch of nothing: %v", err)
	}
	s.Hangup()
	_, err = c.API.Ping(ctx, 0, "x")
	if err := vending.Error("ping", err); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("after a hang-up: %v", err)
	}
}

func TestCancelledContextEndsTheCall(t *testing.T) {
	t.Parallel()
	s := standin.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := vending.Dial(ctx, config(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	if _, err := c.API.Ping(ctx, 5000, "x"); err == nil {
		t.Error("the call ended well")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	cfg := config(t, standin.Start(t))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Address = l.Addr().String()
	_ = l.Close()
	if _, err := vending.Dial(t.Context(), cfg); !errkind.Is(err, errkind.Unavailable) {
		t.Errorf("nobody listens: %v", err)
	}
	cfg.Address = "nowhere"
	if _, err := vending.Dial(t.Context(), cfg); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("no port: %v", err)
	}
	cfg.Trust = nil
	if _, err := vending.Dial(t.Context(), cfg); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("no trust: %v", err)
	}
}

func TestTrust(t *testing.T) {
	t.Parallel()
	s := standin.Start(t)
	now := time.Now()
	for name, test := range map[string]struct {
		pem  []byte
		now  time.Time
		want errkind.Kind
	}{
		"another server":  {standin.Start(t).Certificate, now, errkind.Integrity},
		"expired":         {s.Certificate, now.Add(48 * time.Hour), errkind.Integrity},
		"not yet valid":   {s.Certificate, now.Add(-48 * time.Hour), errkind.Integrity},
		"one of several":  {append(standin.Start(t).Certificate, s.Certificate...), now, errkind.Kind(255)},
		"an unrelated CA": {authority(t), now, errkind.Integrity},
	} {
		trust, err := vending.ParseTrust(test.pem, func() time.Time { return test.now })
		if err != nil {
			t.Fatal(err)
		}
		c, err := vending.Dial(t.Context(), vending.Config{Address: s.Address, Trust: trust})
		if err == nil {
			_ = c.Close()
		}
		if (err == nil) != (test.want == errkind.Kind(255)) || err != nil && !errkind.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string]string{"empty": "", "key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"garbage": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if _, err := vending.ParseTrust([]byte(bad), time.Now); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func authority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "other"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestLoadRecovers: connections break and sessions expire while many clients
// vend; every token is on record exactly once and the meters accept it.
func TestLoadRecovers(t *testing.T) {
	t.Parallel()
	s := standin.Start(t)
	meters := []*prismtoken1.MeterConfigIn{meterConfig("00000000000", 11), meterConfig("0100000000008", 7)}
	var mu sync.Mutex
	var calls []vending.Call
	s.LoseAnswer(20)
	load := vending.Load{
		Server: config(t, s), User: standin.User, Password: standin.Password, Meters: meters, Amount: 1,
		Clients: 4, Calls: 80, Recover: 10 * time.Second,
		Record: func(c vending.Call) error {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, c)
			switch len(calls) {
			case 40:
				s.ExpireTokens()
			case 60:
				s.Hangup()
			}
			return nil
		},
	}
	report, err := load.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report.Calls != 80 || len(calls) != 80 || report.Fetched == 0 {
		t.Errorf("report %+v", report)
	}
	virtual := map[string]*meter.Meter{}
	for _, m := range meters {
		virtual[m.Drn] = virtualMeter(t, m)
	}
	accepted := 0
	for _, c := range calls {
		if c.Code != "" && c.Code != "ECacheMiss" {
			t.Errorf("call %+v", c)
		}
		for _, token := range c.Tokens {
			// Concurrent answers come in any order, within the meter's memory.
			if r, err := virtual[c.DRN].Enter(token.TokenDec, time.Now()); err != nil || !r.Accepted {
				t.Errorf("%s: %s %v", c.DRN, r, err)
			}
			accepted++
		}
	}
	if _, issued := s.Counts(); issued != accepted {
		t.Errorf("%d tokens issued, %d on record", issued, accepted)
	}
	if signedIn, _ := s.Counts(); signedIn < 5 {
		t.Errorf("%d sign-ins; the expired session was not renewed", signedIn)
	}
}

func TestLoadStops(t *testing.T) {
	t.Parallel()
	s := standin.Start(t)
	load := vending.Load{Server: config(t, s), User: standin.User, Password: standin.Password,
		Meters: []*prismtoken1.MeterConfigIn{meterConfig("00000000000", 11)}, Amount: 1, Clients: 2, Duration: 200 * time.Millisecond}
	report, err := load.Run(t.Context())
	if err != nil || report.Tokens == 0 || report.P50Millis <= 0 || report.P99Millis < report.P50Millis {
		t.Errorf("%+v, %v", report, err)
	}
	// Without recovery a lost answer ends the run and is on record.
	s.LoseAnswer(5)
	var lost int
	load.Record = func(c vending.Call) error {
		if c.Code == vending.Lost {
			lost++
		}
		return nil
	}
	load.Clients, load.Duration = 1, 5*time.Second
	if _, err := load.Run(t.Context()); !errkind.Is(err, errkind.Unavailable) || lost != 1 {
		t.Errorf("%v, %d lost", err, lost)
	}
	for name, edit := range map[string]func(*vending.Load){
		"no meter": func(l *vending.Load) { l.Meters = nil },
		"clients":  func(l *vending.Load) { l.Clients = 0 },
		"no bound": func(l *vending.Load) { l.Duration = 0 },
	} {
		bad := load
		edit(&bad)
		if _, err := bad.Run(t.Context()); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	load.Password = "wrong"
	if _, err := load.Run(t.Context()); !errkind.Is(err, errkind.Unauthorised) {
		t.Errorf("wrong password: %v", err)
	}
}
