// Package access connects a command to the services of a unit or a VCM, with
// the keys and the trust that the services home holds.
package access

import (
	"context"
	"fmt"
	"os"
	"time"

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
	return enrol.Open(enrol.DefaultDir(env.Getenv, os.Geteuid() == 0), enrol.Env{
		Getenv: env.Getenv,
		Clock:  env.Clock,
		Ask:    func(prompt string, confirm bool) (string, error) { return env.Secret(prompt, "", confirm) },
		Warn:   func(text string) { fmt.Fprintf(env.Stderr, "WARNING: %s\n", text) },
	})
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
	signer, err := h.Key(enrol.Tenant, service)
	if err != nil {
		return nil, err
	}
	c, err := sshrpc.Dial(ctx, sshrpc.ClientConfig{
		Service: service, Address: address, Signer: signer, UnitKey: key,
		Principal: hsmapi.Principal(f.ESN, f.UUID, service), Timeout: timeout,
	})
	if errkind.Is(err, errkind.Unauthorised) {
		return nil, errkind.Errorf(errkind.Unauthorised, "%w; 'hsmadmin vcm enroll' installs this host's keys", err)
	}
	return c, err
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
	signer, err := h.Key(enrol.Platform, service)
	if err != nil {
		return nil, err
	}
	c, err := sshrpc.Dial(ctx, sshrpc.ClientConfig{
		Service: service, Address: address, Signer: signer, UnitKey: key,
		Principal: hsmapi.Principal(u.ESN, "", service), Timeout: timeout,
	})
	if errkind.Is(err, errkind.Unauthorised) {
		return nil, errkind.Errorf(errkind.Unauthorised, "%w; 'hsmadmin enroll' installs this host's keys", err)
	}
	return c, err
}
