// Package signedlog is the commands around a signed log (internal/auditlog),
// the same for a VCM's tenant and for a service provider: export, expire,
// getkey, and prove and verify, which need no service at all.
package signedlog

import (
	"context"
	"crypto/ed25519"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/console"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// keyService is the name under which a unit certifies the key of a log.
const keyService = "auditlog"

// Source is whose log it is.
type Source struct {
	Name string // for file names: the VCM's UUID, the unit's ESN
	ESN  string
	UUID string // of the VCM; empty: the platform's log
	Unit ssh.PublicKey
}

// key is the log key in line, if the unit certified it for this log.
func (s Source) key(line string) (ed25519.PublicKey, error) {
	key, err := auditlog.CertifiedKey(line, s.Unit, hsmapi.Principal(s.ESN, s.UUID, keyService))
	if err != nil {
		return nil, errkind.Errorf(errkind.Of(err), "the log key of %s: %w", s.Name, err)
	}
	return key, nil
}

// Access finds a log for a command.
type Access interface {
	// Source says whose log the command's options select.
	Source(c *cli.Context) (Source, error)
	// Monitor does fn with the monitor service of that log's owner.
	Monitor(c *cli.Context, fn func(ctx context.Context, m *monitor.MonitorClient) error) error
}

// Commands returns export, expire, getkey, prove and verify; flags select the log.
func Commands(env *console.Env, a Access, flags, offline []cli.Flag) []*cli.Command {
	t := tool{env: env, access: a, flags: flags, offline: offline}
	return []*cli.Command{t.export(), t.expire(), t.getKey(), t.prove(), t.verify()}
}

type tool struct {
	env            *console.Env
	access         Access
	flags, offline []cli.Flag
}

func (t tool) online(flags ...cli.Flag) []cli.Flag {
	out := append([]cli.Flag{}, t.flags...)
	return append(append(out, flags...), console.TimeoutFlag(), console.JSONFlag(), console.VerboseFlag())
}
