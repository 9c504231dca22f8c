package platform

import (
	"context"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// FactoryKeyName is the key file of the one client that sshadmin accepts until
// the provider has enrolled.
const FactoryKeyName = "factory-client"

// Clients knows which client key may use which of the platform's services.
type Clients struct {
	ledger  *ledger.Ledger
	factory ssh.PublicKey // nil once enrolled

	mu   sync.RWMutex
	keys map[string]clientKey
}

type clientKey struct {
	key       ssh.PublicKey
	installed time.Time
}

// OpenClients reads the installed keys, and makes the factory key for as long as
// sshadmin has none.
func OpenClients(l *ledger.Ledger) (*Clients, error) {
	c := &Clients{ledger: l, keys: map[string]clientKey{}}
	var stored map[string]ledger.Client
	err := l.View(func(tx ledger.Tx) (err error) {
		stored, err = tx.Clients()
		return err
	})
	if err != nil {
		return nil, err
	}
	for service, s := range stored {
		key, err := request.ParseKey(s.Key)
		if err != nil {
			return nil, errkind.Errorf(errkind.Integrity, "stored client key of %s: %w", service, err)
		}
		c.keys[service] = clientKey{key, s.Installed}
	}
	if !c.factoryState() {
		return c, l.DropKey(FactoryKeyName)
	}
	private, err := l.Key(FactoryKeyName)
	if err != nil {
		return nil, err
	}
	c.factory, err = ssh.NewPublicKey(private.Public())
	return c, err
}

func (c *Clients) factoryState() bool {
	_, enrolled := c.keys[ServiceSSHAdmin]
	return !enrolled
}

// Factory reports whether nobody has enrolled yet, and where the factory key is.
func (c *Clients) Factory() (path string, yes bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.ledger.KeyPath(FactoryKeyName), c.factoryState()
}

// Authorised returns the key that may use a service now.
func (c *Clients) Authorised(service string) (ssh.PublicKey, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if k, ok := c.keys[service]; ok {
		return k.key, true
	}
	if service == ServiceSSHAdmin && c.factory != nil {
		return c.factory, true
	}
	return nil, false
}

// Installed returns a service's key and when it was installed.
func (c *Clients) Installed(service string) (ssh.PublicKey, time.Time, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	k, ok := c.keys[service]
	return k.key, k.installed, ok
}

// Install stores keys for services, all or none, with their audit entry.
func (c *Clients) Install(ctx context.Context, keys map[string]ssh.PublicKey, log *Log, e auditlog.Entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, own := keys[ServiceSSHAdmin]; c.factoryState() && !own {
		return errkind.Errorf(errkind.Refused, "the first keys to be installed must include one for %s, which replaces the factory key", ServiceSSHAdmin)
	}
	e.Kind, e.Detail = "unit.keys", map[string]string{}
	for service, key := range keys {
		e.Detail[service] = ssh.FingerprintSHA256(key)
	}
	err := c.ledger.Update(ctx, func(tx ledger.Tx) error {
		if err := log.in(tx, e); err != nil {
			return err
		}
		for service, key := range keys {
			if err := tx.SetClient(service, ledger.Client{Key: request.KeyText(key), Installed: e.Time}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for service, key := range keys {
		c.keys[service] = clientKey{key, e.Time}
	}
	c.factory = nil
	return c.ledger.DropKey(FactoryKeyName)
}
