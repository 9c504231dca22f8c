// Package keystore is the host's side of key management: public keys of Key
// Management Centres, requests to them, their key load files, and which
// vending keys of those are in the security module.
//
// # Order
//
// A key load file is stored whole and durably before the module sees the
// response in it, as a candidate that does not replace the file before it. Once
// the module took the response the candidate becomes the KMC's file; a crash
// between the two is mended from the module's state. A module that is LOADING
// therefore always has its keys at hand, and a file that the module refuses
// changes nothing.
package keystore

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Config is what a keystore needs.
type Config struct {
	Store        *store.Store
	Module       *tsm.Module
	ModuleBucket string // the bucket of the store that is the module's vault
	Preferences  *accounts.Preferences
	Audit        accounts.AuditFunc
	Clock        clock.Clock
	Log          *slog.Logger
}

// Keystore is safe for concurrent use.
type Keystore struct {
	cfg Config
	// one key management operation at a time; vending does not take it
	ops sync.Mutex
}

// New returns the keystore kept in cfg.Store.
func New(ctx context.Context, cfg Config) (*Keystore, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keystore{cfg: cfg}
	k.ops.Lock()
	defer k.ops.Unlock()
	return k, k.mend(ctx)
}

// Centre is a Key Management Centre and its KEK slot.
type Centre struct {
	KMC       string
	KPN       int
	Activates time.Time
	Expires   time.Time
	Approved  bool
	InModule  bool // false: only the public key is stored
	State     string
	Request   bool   // a VKLOADREQ is unanswered
	TVP       string // of the newest VKLOADREQ
	Loaded    int    // registers that hold a key of this KMC
	InFile    int    // keys in the newest key load file
}

// Centres lists the KMCs by name.
func (k *Keystore) Centres(ctx context.Context) ([]Centre, error) {
	var out []Centre
	err := k.cfg.Store.View(ctx, func(tx *store.Tx) error {
		out = nil
		byName := make(map[string]*Centre)
		err := eachPublicKey(tx, func(p publicKey) error {
			byName[p.parsed.KMC] = &Centre{
				KMC: p.parsed.KMC, KPN: p.parsed.KPN, Activates: p.parsed.Activates, Expires: p.parsed.ExpiresAt(),
				Approved: k.cfg.Module.Approved(p.Record),
			}
			return nil
		})
		if err != nil {
			return err
		}
		slots, err := k.cfg.Module.Slots(tx.Bucket(k.cfg.ModuleBucket))
		if err != nil {
			return err
		}
		for _, s := range slots {
			c := byName[s.KMC]
			if c == nil {
				c = &Centre{KMC: s.KMC, KPN: s.KPN, Activates: s.Activates, Expires: s.Expires}
				byName[s.KMC] = c
			}
			c.InModule, c.State, c.Request, c.TVP, c.Loaded = true, s.State, s.Request, s.TVP, s.Registers
		}
		for name, c := range byName {
			h, err := currentFile(tx, name)
			if err != nil {
				return err
			}
			if h != nil {
				c.InFile = h.Count
			}
			out = append(out, *c)
		}
		slices.SortFunc(out, func(a, b Centre) int { return strings.Compare(a.KMC, b.KMC) })
		return nil
	})
	return out, err
}

// Centre shows one KMC.
func (k *Keystore) Centre(ctx context.Context, kmc string) (Centre, error) {
	all, err := k.Centres(ctx)
	if err != nil {
		return Centre{}, err
	}
	for _, c := range all {
		if c.KMC == kmc {
			return c, nil
		}
	}
	return Centre{}, errkind.Errorf(errkind.NotFound, "no KMC %q: upload its public key first", kmc)
}

// note writes an audit entry on its own; what the module does it logs itself.
func (k *Keystore) note(ctx context.Context, kind string, by accounts.Actor, subject string, detail map[string]string) error {
	return k.cfg.Store.Update(ctx, func(tx *store.Tx) error { return k.audit(tx, kind, by, subject, detail) })
}

func (k *Keystore) audit(tx *store.Tx, kind string, by accounts.Actor, subject string, detail map[string]string) error {
	return k.cfg.Audit(tx, auditlog.Entry{Time: k.cfg.Clock.Now().UTC(), Kind: kind, Actor: by.String(), Subject: subject, Detail: detail})
}
