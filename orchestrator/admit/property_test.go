package admit_test

import (
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

func TestProperty(t *testing.T) {
	t.Parallel()
	key, next := signer(t), signer(t)
	keyText := request.KeyText(next.PublicKey())
	plain := lifecycle.Record{UUID: vcmID, State: lifecycle.Stopped, Properties: lifecycle.Properties{
		Name: "old", IPAddress: "127.77.1.9", Features: uint32(licensing.STSVending), TenantRequestKey: request.KeyText(key.PublicKey())}}
	with := func(fn func(*lifecycle.Properties)) lifecycle.Record {
		r := plain
		fn(&r.Properties)
		return r
	}
	in := func(s lifecycle.State) lifecycle.Record { r := plain; r.State = s; return r }
	restricted := with(func(p *lifecycle.Properties) { p.RestrictStartup = true })
	auto := with(func(p *lifecycle.Properties) { p.Autostart = true })
	type props = request.Properties
	share := shareKey(t)
	all := request.Request{Properties: props{Name: ptr("new"), Autostart: ptr(true), SerialCardreader: ptr(true),
		Features: ptr(licensing.STSEA11), IPAddress: ptr("127.77.1.10"), ConductorPort: ptr(uint16(5200)), RequestKey: next.PublicKey()}}
	holder := lifecycle.Record{UUID: otherID, Properties: lifecycle.Properties{SerialCardreader: true, IPAddress: "127.77.1.10"}}

	for name, c := range map[string]struct {
		vcm         lifecycle.Record
		request     request.Request
		signer      int // 1: by another key
		file        []byte
		vcms        []lifecycle.Record
		name, value string
		kind        errkind.Kind
		text        string
		then        func(*testing.T, admit.Change)
	}{
		"name": {vcm: plain, request: all, name: "name", value: "new", then: func(t *testing.T, c admit.Change) {
			p := plain.Properties
			p.Name = "new"
			if c.Properties != p || c.Protect {
				t.Errorf("%+v", c)
			}
		}},
		"autostart, spelled True": {vcm: plain, request: all, name: "autostart", value: "True", then: func(t *testing.T, c admit.Change) {
			if !c.Properties.Autostart {
				t.Errorf("%+v", c)
			}
		}},
		"with a hyphen": {vcm: plain, request: all, name: "serial-cardreader", value: "true", then: func(t *testing.T, c admit.Change) {
			if !c.Properties.SerialCardreader {
				t.Errorf("%+v", c)
			}
		}},
		"features by name": {vcm: plain, request: all, name: "features", value: "STSEA11", then: func(t *testing.T, c admit.Change) {
			if f := licensing.Features(c.Properties.Features); f&licensing.STSEA11 == 0 || f&licensing.STSVending != 0 {
				t.Errorf("%s", f)
			}
		}},
		"features by word": {vcm: plain, request: all, name: "features", value: "0x04000000"},
		"ip_address": {vcm: plain, request: all, name: "ip_address", value: "127.77.1.10", then: func(t *testing.T, c admit.Change) {
			if c.Properties.IPAddress != "127.77.1.10" {
				t.Errorf("%+v", c)
			}
		}},
		"its own ip_address": {vcm: plain, vcms: []lifecycle.Record{plain}, request: request.Request{Properties: props{IPAddress: ptr("127.77.1.9")}},
			name: "ip_address", value: "127.77.1.9"},
		"conductor_port": {vcm: plain, request: all, name: "conductor-port", value: "5200", then: func(t *testing.T, c admit.Change) {
			if c.Properties.ConductorPort != 5200 {
				t.Errorf("%+v", c)
			}
		}},
		"conductor_port of another service": {vcm: plain, request: all, name: "conductor_port", value: "2203", kind: errkind.Invalid, text: "port 2203 is that of the VCM's service prismtoken"},
		"conductor_port needs privilege":    {vcm: plain, request: all, name: "conductor_port", value: "443", kind: errkind.Invalid, text: "outside 1024 to 65535"},
		"conductor_port is no number":       {vcm: plain, request: all, name: "conductor_port", value: "http", kind: errkind.Invalid, text: "conductor_port is a number"},
		"k_tenant_req": {vcm: plain, request: all, name: "k_tenant_req", value: keyText + " comment", then: func(t *testing.T, c admit.Change) {
			if c.Properties.TenantRequestKey != keyText {
				t.Errorf("%+v", c)
			}
		}},
		"k_tenant_req signed by the new key": {vcm: plain, request: all, signer: 1, name: "k_tenant_req", value: keyText, kind: errkind.Integrity, text: "key"},
		"created VCM":                        {vcm: in(lifecycle.Created), request: all, name: "name", value: "new"},
		"failed VCM":                         {vcm: in(lifecycle.Failed), request: all, name: "name", value: "new"},
		"running VCM":                        {vcm: in(lifecycle.Running), request: all, name: "name", value: "new", kind: errkind.Mode, text: "stop it before"},
		"starting VCM":                       {vcm: in(lifecycle.Starting), request: all, name: "name", value: "new", kind: errkind.Mode, text: "stop it before"},
		"VCM being deleted":                  {vcm: in(lifecycle.Deleting), request: all, name: "name", value: "new", kind: errkind.Mode, text: "it is being deleted"},
		"stopping VCM":                       {vcm: in(lifecycle.Stopping), request: all, name: "name", value: "new", kind: errkind.Mode, text: "stop it before"},
		"deleting VCM":                       {vcm: in(lifecycle.Deleting), request: all, name: "name", value: "new", kind: errkind.Mode, text: "deleting"},
		"another value": {vcm: plain, request: all, name: "autostart", value: "false", kind: errkind.Refused,
			text: "invalid property value: autostart mismatch"},
		"not in the request": {vcm: plain, request: request.Request{Properties: props{Name: ptr("new")}}, name: "autostart", value: "true",
			kind: errkind.Refused, text: "it changes name"},
		"no such property":          {vcm: plain, request: all, name: "colour", value: "red", kind: errkind.Invalid, text: "no property"},
		"no such value":             {vcm: plain, request: all, name: "autostart", value: "yes", kind: errkind.Invalid, text: "true or false"},
		"no request":                {vcm: plain, file: []byte{}, name: "autostart", value: "true", kind: errkind.Invalid, text: "setproperties is needed"},
		"another kind":              {vcm: plain, file: file(t, key, request.Request{Kind: request.Start, VCM: vcmID}), name: "autostart", value: "true", kind: errkind.Refused, text: "of kind start"},
		"for another VCM":           {vcm: plain, file: file(t, key, request.Request{Kind: request.SetProperties, VCM: otherID, Properties: all.Properties}), name: "autostart", value: "true", kind: errkind.Refused, text: "is for VCM " + otherID},
		"an expired request":        {vcm: plain, request: request.Request{Properties: all.Properties, NotBefore: now.Add(-2 * time.Hour), Expires: now.Add(-time.Hour)}, name: "name", value: "new", kind: errkind.Refused, text: "host's clock"},
		"a feature not licensed":    {vcm: plain, request: request.Request{Properties: props{Features: ptr(licensing.STSManufacturing)}}, name: "features", value: "STSManufacturing", kind: errkind.Limit, text: "STSManufacturing"},
		"an address taken":          {vcm: plain, request: all, vcms: []lifecycle.Record{holder}, name: "ip_address", value: "127.77.1.10", kind: errkind.Refused, text: "belongs to another"},
		"a foreign subnet":          {vcm: plain, request: request.Request{Properties: props{IPAddress: ptr("10.0.0.1")}}, name: "ip_address", value: "10.0.0.1", kind: errkind.Refused, text: "outside"},
		"the card reader elsewhere": {vcm: plain, request: all, vcms: []lifecycle.Record{holder}, name: "serial_cardreader", value: "true", kind: errkind.Refused, text: "has the serial card reader"},
		"the card reader, giving it back": {vcm: with(func(p *lifecycle.Properties) { p.SerialCardreader = true }), vcms: []lifecycle.Record{holder},
			request: request.Request{Properties: props{SerialCardreader: ptr(false)}}, name: "serial_cardreader", value: "false"},
		"autostart of a restricted VCM": {vcm: restricted, request: all, name: "autostart", value: "true", kind: errkind.Refused, text: "exclude each other"},
		"restricting an autostart VCM": {vcm: auto, request: request.Request{Properties: props{RestrictStartup: ptr(true)}, ShareKey: share},
			name: "restrict_startup", value: "true", kind: errkind.Refused, text: "exclude each other"},
		"restrict": {vcm: plain, request: request.Request{Properties: props{RestrictStartup: ptr(true)}, ShareKey: share}, name: "restrict_startup", value: "true",
			then: func(t *testing.T, c admit.Change) {
				if !c.Protect || c.ShareKey != share || !c.Properties.RestrictStartup {
					t.Errorf("%+v", c)
				}
			}},
		"restrict again": {vcm: restricted, request: request.Request{Properties: props{RestrictStartup: ptr(true)}, ShareKey: share}, name: "restrict_startup", value: "true",
			then: func(t *testing.T, c admit.Change) {
				if c.Protect || !c.Properties.RestrictStartup {
					t.Errorf("%+v", c)
				}
			}},
		"free": {vcm: restricted, request: request.Request{Properties: props{RestrictStartup: ptr(false)}, Share: []byte("sealed")}, name: "restrict_startup", value: "false",
			then: func(t *testing.T, c admit.Change) {
				if !c.Protect || c.ShareKey != "" || string(c.Share) != "sealed" || c.Properties.RestrictStartup {
					t.Errorf("%+v", c)
				}
			}},
		"free without a share": {vcm: restricted, request: request.Request{Properties: props{RestrictStartup: ptr(false)}}, name: "restrict_startup", value: "false",
			kind: errkind.Refused, text: "carries no share"},
		"free what is free": {vcm: plain, request: request.Request{Properties: props{RestrictStartup: ptr(false)}}, name: "restrict_startup", value: "false",
			then: func(t *testing.T, c admit.Change) {
				if c.Protect {
					t.Errorf("%+v", c)
				}
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := c.file
			if f == nil {
				c.request.Kind, c.request.VCM = request.SetProperties, vcmID
				by := key
				if c.signer == 1 {
					by = next
				}
				f = file(t, by, c.request)
			}
			got, err := unit(t, c.vcms...).Property(c.vcm, f, c.name, c.value)
			check(t, err, c.kind, c.text)
			if c.then != nil && err == nil {
				c.then(t, got)
			}
			if c.text == "" { // the same request is good for another call
				if _, err := unit(t, c.vcms...).Property(c.vcm, f, c.name, c.value); err != nil {
					t.Errorf("the second time: %v", err)
				}
			}
		})
	}
}

func TestEveryPropertyIsDescribed(t *testing.T) {
	t.Parallel()
	described := map[string]bool{}
	for _, p := range admit.Properties() {
		described[p.Name] = p.Values != "" && p.Description != ""
	}
	for _, name := range request.PropertyNames() {
		if !described[name] {
			t.Errorf("%s is not described", name)
		}
	}
	if len(described) != len(request.PropertyNames()) {
		t.Errorf("%d described, %d exist", len(described), len(request.PropertyNames()))
	}
}
