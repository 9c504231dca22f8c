// Package access connects a command to the services of a unit or a VCM, with
// the keys and the trust that the services home holds.
package access

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

// Home opens the services home of the process's user.
func Home(env *console.Env) (*enrol.Home, error) {
	root := os.Geteuid() == 0
	return enrol.Open(enrol.DefaultDir(env.Getenv, root), enrol.Env{
		Root:   root,
		Getenv: env.Getenv,
		Clock:  env.Clock,
		Ask:    func(prompt string, confirm bool) (string, error) { return env.Secret(prompt, "", confirm) },
		Warn:   func(text string) { fmt.Fprintf(env.Stderr, "WARNING: %s\n", text) },
	})
}

// peer is a service and how to recognise it.
type peer struct {
	realm              enrol.Realm
	service, principal string
	address            string
	unit               ssh.PublicKey
	hint               string // what to do where this host's key is not accepted
}

// DialVCM connects to a service of an enrolled or verified VCM.
func DialVCM(ctx context.Context, h *enrol.Home, f *vcmfile.File, service string, timeout time.Duration) (*sshrpc.Client, error) {
	address, err := f.Endpoint(service)
	if err != nil {
		return nil, err
	}
	key, err := f.Key()
	if err != nil {
		return nil, err
	}
	hint := "'hsmadmin vcm enroll' installs this host's keys"
	if service == enrol.SSHAdmin { // the key that enrolling needs
		hint = "the VCM takes the sshadmin key of the services home that asked for it; use that home (NFAST_SERVICES_HOME)"
	}
	return dial(ctx, h, timeout, peer{
		realm: enrol.Tenant, service: service, principal: hsmapi.Principal(f.ESN, f.UUID, service), address: address, unit: key,
		hint: hint,
	})
}

// DialUnit connects to a platform service of an enrolled unit.
func DialUnit(ctx context.Context, h *enrol.Home, u unitfile.Unit, service string, timeout time.Duration) (*sshrpc.Client, error) {
	address, err := u.Service(service)
	if err != nil {
		return nil, err
	}
	key, err := u.Key()
	if err != nil {
		return nil, err
	}
	hint := "'hsmadmin enroll' installs this host's keys"
	if service == enrol.SSHAdmin { // the key that enrolling needs
		hint = ""
	}
	return dial(ctx, h, timeout, peer{
		realm: enrol.Platform, service: service, principal: hsmapi.Principal(u.ESN, "", service), address: address, unit: key,
		hint: hint,
	})
}

// dial connects with the service's key, or, while keys are being rolled, with
// the next one.
func dial(ctx context.Context, h *enrol.Home, timeout time.Duration, p peer) (*sshrpc.Client, error) {
	signer, err := h.Key(p.realm, p.service)
	if err != nil {
		return nil, err
	}
	cfg := sshrpc.ClientConfig{
		Service: p.service, Address: p.address, Signer: signer, UnitKey: p.unit, Principal: p.principal, Timeout: timeout,
	}
	c, err := sshrpc.Dial(ctx, cfg)
	if !errkind.Is(err, errkind.Unauthorised) {
		return c, err
	}
	if h.HasNext(p.realm, p.service) {
		if cfg.Signer, err = h.NextKey(p.realm, p.service); err != nil {
			return nil, err
		}
		if c, err = sshrpc.Dial(ctx, cfg); !errkind.Is(err, errkind.Unauthorised) {
			return c, err
		}
	}
	if p.hint == "" {
		return nil, err
	}
	return nil, errkind.Errorf(errkind.Unauthorised, "%w; %s", err, p.hint)
}
