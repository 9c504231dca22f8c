package admit_test

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

var (
	now = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	// The host's clock is wrong, so that a test sees which one counts.
	clocks = hsmapi.Time{Module: now, Host: now.Add(-90 * time.Minute)}
)

const (
	vcmID   = "4f9d05b8-95f4-41ab-8b0a-0c9c7ce14209"
	otherID = "11111111-2222-4333-8444-555555555555"
)

func signer(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shareKey(t testing.TB) string {
	t.Helper()
	s, err := tenantshare.Generate()
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func unit(t testing.TB, vcms ...lifecycle.Record) admit.Unit {
	t.Helper()
	n, err := network.DefaultNetwork("127.77.1.0/24", "1A2B-3C4D-5E6F")
	if err != nil {
		t.Fatal(err)
	}
	return admit.Unit{
		Entitlement: licensing.Entitlement{
			Features: licensing.STSVending | licensing.STSEA11 | licensing.HSMSpeed2, MaxActive: 3, MaxCreated: 1000,
		},
		Network: n, VCMs: vcms, Clock: clocks,
	}
}

// file signs r with key, valid around now unless r says otherwise.
func file(t testing.TB, key ssh.Signer, r request.Request) []byte {
	t.Helper()
	r.ID, r.Created = uuid.NewString(), now
	if r.NotBefore.IsZero() {
		r.NotBefore, r.Expires = now.Add(-time.Hour), now.Add(time.Hour)
	}
	if r.Kind == request.Create {
		r.SSHAdminKey, r.RequestKey = signer(t).PublicKey(), key.PublicKey()
	}
	p, err := r.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ptr[T any](v T) *T { return &v }

func check(t *testing.T, err error, kind errkind.Kind, text string) {
	t.Helper()
	if text == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), text) || errkind.Of(err) != kind {
		t.Errorf("%v (%v), want %q (%v)", err, errkind.Of(err), text, kind)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	key := signer(t)
	holder := lifecycle.Record{UUID: otherID, State: lifecycle.Stopped,
		Properties: lifecycle.Properties{SerialCardreader: true, IPAddress: "127.77.1.9"}}
	type props = request.Properties
	for name, c := range map[string]struct {
		request request.Request
		file    []byte // instead of request
		choices admit.Choices
		vcms    []lifecycle.Record
		alter   func(*admit.Unit)
		kind    errkind.Kind
		text    string
		then    func(*testing.T, admit.Creation)
	}{
		"plain": {then: func(t *testing.T, c admit.Creation) {
			p := c.Properties
			if p.Autostart || p.RestrictStartup || p.SerialCardreader || p.IPAddress != "" || p.DiskQuota != admit.DefaultDiskQuota {
				t.Errorf("%+v", p)
			}
			if want := uint32(licensing.STSVending | licensing.STSEA11 | licensing.HSMSpeed2); p.Features&want != want {
				t.Errorf("features %08x are not the platform's", p.Features)
			}
			if p.TenantRequestKey != request.KeyText(key.PublicKey()) || c.SSHAdminKey == "" || c.RequestID == "" {
				t.Errorf("%+v", c)
			}
		}},
		"the tenant's wishes": {
			request: request.Request{Properties: props{Name: ptr("shop"), Autostart: ptr(true), SerialCardreader: ptr(true), Features: ptr(licensing.STSVending)}},
			then: func(t *testing.T, c admit.Creation) {
				if p := c.Properties; p.Name != "shop" || !p.Autostart || !p.SerialCardreader || licensing.Features(p.Features)&licensing.STSEA11 != 0 {
					t.Errorf("%+v", p)
				}
			}},
		"the provider's choices": {
			request: request.Request{Properties: props{Name: ptr("shop"), Autostart: ptr(true), Features: ptr(licensing.STSVending)}},
			choices: admit.Choices{Name: "mine", Autostart: ptr(false), SerialCardreader: ptr(true), Features: ptr(licensing.STSEA11), IPAddress: "127.77.1.7"},
			then: func(t *testing.T, c admit.Creation) {
				p := c.Properties
				if p.Name != "mine" || p.Autostart || !p.SerialCardreader || p.IPAddress != "127.77.1.7" || licensing.Features(p.Features)&licensing.STSVending != 0 {
					t.Errorf("%+v", p)
				}
			}},
		"restrict-startup": {
			request: request.Request{Properties: props{RestrictStartup: ptr(true)}, ShareKey: shareKey(t)},
			then: func(t *testing.T, c admit.Creation) {
				if !c.Properties.RestrictStartup || c.ShareKey == "" {
					t.Errorf("%+v", c)
				}
			}},
		"autostart chosen against restrict-startup": {
			request: request.Request{Properties: props{RestrictStartup: ptr(true)}, ShareKey: shareKey(t)},
			choices: admit.Choices{Autostart: ptr(true)}, kind: errkind.Refused, text: "exclude each other"},
		"no request":              {file: []byte{}, kind: errkind.Invalid, text: "request of kind create is needed"},
		"not a request":           {file: []byte("hello\n"), kind: errkind.Invalid, text: "tenant request"},
		"another kind of request": {file: file(t, key, request.Request{Kind: request.Start, VCM: vcmID}), kind: errkind.Refused, text: "is of kind start"},
		"truncated":               {file: cut(file(t, key, request.Request{Kind: request.Create})), kind: errkind.Invalid, text: "tenant request"},
		"altered":                 {file: alter(file(t, key, request.Request{Kind: request.Create, Properties: props{Name: ptr("shop")}})), kind: errkind.Integrity, text: "signature"},
		"expired": {request: request.Request{NotBefore: now.Add(-2 * time.Hour), Expires: now.Add(-time.Hour)}, kind: errkind.Refused,
			text: "expired at 2026-03-01T09:00:00Z, and it is 2026-03-01T10:00:00Z (module's clock 2026-03-01T10:00:00Z, host's clock 2026-03-01T08:30:00Z)"},
		"not yet valid": {request: request.Request{NotBefore: now.Add(time.Second), Expires: now.Add(time.Hour)}, kind: errkind.Refused,
			text: "valid from 2026-03-01T10:00:01Z, and it is 2026-03-01T10:00:00Z (module's clock 2026-03-01T10:00:00Z, host's clock 2026-03-01T08:30:00Z)"},
		"valid at its last second": {request: request.Request{NotBefore: now.Add(-time.Hour), Expires: now}},
		"a feature without licence": {choices: admit.Choices{Features: ptr(licensing.STSManufacturing | licensing.STSVending)},
			kind: errkind.Limit, text: "STSManufacturing"},
		"the tenant's feature without licence": {request: request.Request{Properties: props{Features: ptr(licensing.STSCurrencyTokens)}},
			kind: errkind.Limit, text: "STSCurrencyTokens"},
		"a name too long":  {choices: admit.Choices{Name: strings.Repeat("x", 65)}, kind: errkind.Invalid, text: "64"},
		"a foreign subnet": {choices: admit.Choices{IPAddress: "10.0.0.1"}, kind: errkind.Refused, text: "outside the VCM network"},
		"an address taken": {choices: admit.Choices{IPAddress: "127.77.1.9"}, vcms: []lifecycle.Record{holder}, kind: errkind.Refused, text: "belongs to another VCM"},
		"no address":       {choices: admit.Choices{IPAddress: "here"}, kind: errkind.Invalid, text: "not an IP address"},
		"a second serial card reader": {choices: admit.Choices{SerialCardreader: ptr(true)}, vcms: []lifecycle.Record{holder},
			kind: errkind.Refused, text: otherID + " has the serial card reader"},
		"a second VCM without licence": {vcms: []lifecycle.Record{holder}, alter: func(u *admit.Unit) { u.Entitlement.MaxCreated = 1 },
			kind: errkind.Limit, text: "multi-tenant licence (max-active-vcms)"},
		"a sixth VCM at base speed": {vcms: many(5), alter: func(u *admit.Unit) { u.Entitlement.MaxCreated = 5 },
			kind: errkind.Limit, text: "speed upgrade licence (speed)"},
		"the fifth VCM at base speed": {vcms: many(4), alter: func(u *admit.Unit) { u.Entitlement.MaxCreated = 5 }},
		"the 1001st VCM":              {vcms: many(1000), kind: errkind.Limit, text: "all it can"},
		"the 1000th VCM":              {vcms: many(999)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := unit(t, c.vcms...)
			if c.alter != nil {
				c.alter(&u)
			}
			f := c.file
			if f == nil {
				c.request.Kind = request.Create
				f = file(t, key, c.request)
			}
			got, err := u.Create(f, c.choices)
			check(t, err, c.kind, c.text)
			if c.then != nil && err == nil {
				c.then(t, got)
			}
		})
	}
}

func many(n int) []lifecycle.Record {
	out := make([]lifecycle.Record, n)
	for i := range out {
		out[i] = lifecycle.Record{UUID: fmt.Sprint(i), State: lifecycle.Stopped}
	}
	return out
}

func cut(p []byte) []byte { return p[:len(p)-30] }

func alter(p []byte) []byte { return []byte(strings.Replace(string(p), "shop", "shoq", 1)) }

func TestStart(t *testing.T) {
	t.Parallel()
	key, stranger := signer(t), signer(t)
	plain := lifecycle.Record{UUID: vcmID, State: lifecycle.Stopped,
		Properties: lifecycle.Properties{IPAddress: "127.77.1.9", TenantRequestKey: request.KeyText(key.PublicKey())}}
	restricted := plain
	restricted.Properties.RestrictStartup = true
	moved := plain
	moved.Properties.IPAddress = "10.0.0.1"
	start := request.Request{Kind: request.Start, VCM: vcmID, Share: []byte("sealed")}
	late, early, bare, foreign := start, start, start, start
	late.NotBefore, late.Expires = now.Add(-2*time.Hour), now.Add(-time.Second)
	early.NotBefore, early.Expires = now.Add(time.Second), now.Add(time.Hour)
	bare.Share = nil
	foreign.VCM = otherID
	active := func(states ...lifecycle.State) (out []lifecycle.Record) {
		for i, s := range states {
			out = append(out, lifecycle.Record{UUID: fmt.Sprint(i), State: s})
		}
		return append(out, plain)
	}
	for name, c := range map[string]struct {
		vcm   lifecycle.Record
		file  []byte
		vcms  []lifecycle.Record
		kind  errkind.Kind
		text  string
		share string
	}{
		"plain":                           {vcm: plain},
		"plain with a request":            {vcm: plain, file: file(t, key, start)},
		"plain with a bad request":        {vcm: plain, file: file(t, stranger, start), kind: errkind.Integrity, text: "key"},
		"restricted":                      {vcm: restricted, file: file(t, key, start), share: "sealed"},
		"restricted without request":      {vcm: restricted, kind: errkind.Refused, text: "only with a start request"},
		"restricted by a stranger":        {vcm: restricted, file: file(t, stranger, start), kind: errkind.Integrity, text: "key"},
		"restricted, for another VCM":     {vcm: restricted, file: file(t, key, foreign), kind: errkind.Refused, text: "is for VCM " + otherID},
		"restricted, expired":             {vcm: restricted, file: file(t, key, late), kind: errkind.Refused, text: "host's clock"},
		"restricted, not yet valid":       {vcm: restricted, file: file(t, key, early), kind: errkind.Refused, text: "module's clock"},
		"restricted, no share":            {vcm: restricted, file: file(t, key, bare), kind: errkind.Refused, text: "carries no share"},
		"restricted, wrong kind":          {vcm: restricted, file: file(t, key, request.Request{Kind: request.Create}), kind: errkind.Refused, text: "of kind create"},
		"the last active one":             {vcm: plain, vcms: active(lifecycle.Running, lifecycle.Starting, lifecycle.Stopped, lifecycle.Failed, lifecycle.Created)},
		"one too many":                    {vcm: plain, vcms: active(lifecycle.Running, lifecycle.Starting, lifecycle.Stopping), kind: errkind.Limit, text: "licence (max-active-vcms) is for 3"},
		"more than a lower licence":       {vcm: plain, vcms: active(lifecycle.Running, lifecycle.Running, lifecycle.Running, lifecycle.Running), kind: errkind.Limit, text: "4 VCMs are active"},
		"an address of another network":   {vcm: moved, kind: errkind.Refused, text: "outside the VCM network"},
		"itself does not count as active": {vcm: plain, vcms: append(active(lifecycle.Running, lifecycle.Running)[:2], lifecycle.Record{UUID: vcmID, State: lifecycle.Starting})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			share, err := unit(t, c.vcms...).Start(c.vcm, c.file)
			check(t, err, c.kind, c.text)
			if string(share) != c.share {
				t.Errorf("share %q, want %q", share, c.share)
			}
		})
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	for _, s := range lifecycle.States() {
		for _, finalised := range []bool{false, true} {
			for _, force := range []bool{false, true} {
				err := admit.Delete(lifecycle.Record{UUID: vcmID, State: s, Finalised: finalised}, force)
				switch {
				case s.Active():
					check(t, err, errkind.Mode, "stop")
					if s == lifecycle.Stopping && err == nil {
						t.Error("deleted while stopping")
					}
				case s == lifecycle.Created, s == lifecycle.Deleting, finalised, force:
					check(t, err, 0, "")
				default:
					check(t, err, errkind.Refused, "not finalised")
				}
			}
		}
	}
}
