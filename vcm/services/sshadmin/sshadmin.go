// Package sshadmin is the sshadmin service of a VCM: which client key may use
// which of its SSH services. One key a service, kept in the VCM's store.
//
// Before the tenant installs keys, only sshadmin has one: the key of the signed
// request the VCM was made from.
package sshadmin

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	api "github.com/tesserae-hsm/tesserae/internal/api/gen/sshadmin"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

const (
	bucket = "ssh client keys"
	own    = "sshadmin"
)

// Service is one SSH service of the VCM.
type Service struct {
	Name    string
	Address string // host:port
	HostKey string // authorized_keys form, a certificate
}

// Config is what the service needs.
type Config struct {
	Store      *store.Store
	Audit      func(tx *store.Tx, e auditlog.Entry) error
	Clock      clock.Clock
	Services   []Service
	InitialKey string // sshadmin's client key until another is installed
}

// Keys knows the client key of each service. It is safe for concurrent use.
type Keys struct {
	cfg Config

	mu      sync.RWMutex
	current map[string]client
}

type client struct {
	key       ssh.PublicKey // nil: nobody may use the service
	installed time.Time     // zero: never
}

// Open reads the installed keys.
func Open(ctx context.Context, cfg Config) (*Keys, error) {
	k := &Keys{cfg: cfg}
	initial, err := parseKey(cfg.InitialKey)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "first key of sshadmin: %w", err)
	}
	err = cfg.Store.View(ctx, func(tx *store.Tx) error {
		k.current = map[string]client{own: {key: initial}}
		return tx.Bucket(bucket).Range(nil, func(name, value []byte) error {
			c, err := parseClient(value)
			if err != nil {
				return errkind.Errorf(errkind.Integrity, "client key of %s: %w", name, err)
			}
			k.current[string(name)] = c
			return nil
		})
	})
	return k, err
}

// Authorised returns the function that answers the service's client key, as
// sshrpc asks it.
func (k *Keys) Authorised(service string) func() (ssh.PublicKey, bool) {
	return func() (ssh.PublicKey, bool) {
		k.mu.RLock()
		defer k.mu.RUnlock()
		c := k.current[service]
		return c.key, c.key != nil
	}
}

// Handler returns the service for one session; actor names who opened it.
func (k *Keys) Handler(actor string) api.SshAdmin { return handler{k, actor} }

type handler struct {
	keys  *Keys
	actor string
}

func (h handler) ShowKeys(context.Context) ([]*api.ServiceKey, error) { return h.keys.list(), nil }

func (h handler) InstallKeys(ctx context.Context, keys []*api.ClientKey) ([]*api.ServiceKey, error) {
	if err := h.keys.install(ctx, h.actor, keys); err != nil {
		return nil, err
	}
	return h.keys.list(), nil
}

func (k *Keys) list() []*api.ServiceKey {
	k.mu.RLock()
	defer k.mu.RUnlock()
	out := make([]*api.ServiceKey, 0, len(k.cfg.Services))
	for _, s := range k.cfg.Services {
		c := k.current[s.Name]
		sk := &api.ServiceKey{ServiceName: s.Name, Address: s.Address, HostKey: s.HostKey, ClientKey: marshal(c.key)}
		if !c.installed.IsZero() {
			sk.Installed = c.installed.Unix()
		}
		out = append(out, sk)
	}
	return out
}

// install checks all keys, then makes all of them durable, then uses them.
func (k *Keys) install(ctx context.Context, actor string, keys []*api.ClientKey) error {
	now := k.cfg.Clock.Now().Truncate(time.Second)
	changes, err := k.parse(keys, now)
	if err != nil {
		return err
	}
	// Installations are serialised: two of them could each be fine alone and
	// give one key to two services together.
	k.mu.Lock()
	defer k.mu.Unlock()
	next := maps.Clone(k.current)
	maps.Copy(next, changes)
	if err := separate(next); err != nil {
		return err
	}
	err = k.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		for _, name := range slices.Sorted(maps.Keys(changes)) {
			c := changes[name]
			if err := tx.Bucket(bucket).Put([]byte(name), c.marshal()); err != nil {
				return err
			}
			err := k.cfg.Audit(tx, auditlog.Entry{
				Time: now, Kind: "ssh.key.install", Actor: actor, Subject: name,
				Detail: map[string]string{"before": fingerprint(k.current[name].key), "after": fingerprint(c.key)},
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.current = next
	return nil
}

func (k *Keys) parse(keys []*api.ClientKey, now time.Time) (map[string]client, error) {
	if len(keys) == 0 {
		return nil, errkind.Errorf(errkind.Invalid, "no key to install")
	}
	out := map[string]client{}
	for _, ck := range keys {
		known := slices.ContainsFunc(k.cfg.Services, func(s Service) bool { return s.Name == ck.ServiceName })
		if _, twice := out[ck.ServiceName]; !known || twice {
			return nil, errkind.Errorf(errkind.Invalid, "service %q is unknown on a VCM, or given twice", ck.ServiceName)
		}
		c := client{installed: now}
		if ck.ClientKey != "" {
			key, err := parseKey(ck.ClientKey)
			if err != nil {
				return nil, errkind.Errorf(errkind.Invalid, "key of service %s: %w", ck.ServiceName, err)
			}
			c.key = key
		} else if ck.ServiceName == own {
			return nil, errkind.Errorf(errkind.Refused, "service sshadmin must have a key: without one no key could be installed any more")
		}
		out[ck.ServiceName] = c
	}
	return out, nil
}

// separate refuses one key for two services: whoever holds the key of one
// service is to hold nothing of another.
func separate(clients map[string]client) error {
	holder := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(clients)) {
		c := clients[name]
		if c.key == nil {
			continue
		}
		id := string(c.key.Marshal())
		if other, taken := holder[id]; taken {
			return errkind.Errorf(errkind.Refused, "services %s and %s would have one client key: make a key for each service", other, name)
		}
		holder[id] = name
	}
	return nil
}

// parseKey reads a plain public key. Certificates, weak algorithms and options
// are refused.
func parseKey(line string) (ssh.PublicKey, error) {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "not a public key in authorized_keys form")
	}
	if len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errkind.Errorf(errkind.Invalid, "one public key without options is needed")
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return key, nil
	default:
		return nil, errkind.Errorf(errkind.Invalid, "a key of type %s cannot be used: make an Ed25519 or ECDSA key", key.Type())
	}
}

// marshal is the stored form: installation time, then the key's wire form.
func (c client) marshal() []byte {
	p := binary.BigEndian.AppendUint64(nil, uint64(c.installed.Unix()))
	if c.key != nil {
		p = append(p, c.key.Marshal()...)
	}
	return p
}

func parseClient(p []byte) (client, error) {
	if len(p) < 8 {
		return client{}, errkind.Errorf(errkind.Integrity, "malformed record")
	}
	c := client{installed: time.Unix(int64(binary.BigEndian.Uint64(p)), 0)}
	if len(p) == 8 {
		return c, nil
	}
	var err error
	c.key, err = ssh.ParsePublicKey(p[8:])
	return c, err
}

func marshal(key ssh.PublicKey) string {
	if key == nil {
		return ""
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func fingerprint(key ssh.PublicKey) string {
	if key == nil {
		return ""
	}
	return ssh.FingerprintSHA256(key)
}
