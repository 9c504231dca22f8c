package accounts

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Preferences are the settings of one VCM. Reading one is cheap.
type Preferences struct {
	store       *store.Store
	audit       AuditFunc
	clock       clock.Clock
	definitions map[string]Definition
	names       []string

	changes sync.Mutex
	values  atomic.Pointer[map[string]setting]
}

type setting struct {
	text   string
	number int64 // of an int; 1 for True
}

func newSetting(d Definition, text string) setting {
	s := setting{text: text}
	switch d.Type {
	case TypeInt:
		s.number, _ = strconv.ParseInt(text, 10, 64) // canonical checked it
	case TypeBool:
		if text == "True" {
			s.number = 1
		}
	}
	return s
}

func loadPreferences(ctx context.Context, cfg Config) (*Preferences, error) {
	p := &Preferences{store: cfg.Store, audit: cfg.Audit, clock: cfg.Clock, definitions: make(map[string]Definition)}
	values := make(map[string]setting)
	for _, d := range Definitions() {
		p.definitions[d.Name] = d
		p.names = append(p.names, d.Name)
		values[d.Name] = newSetting(d, d.Default)
	}
	slices.Sort(p.names)
	err := cfg.Store.View(ctx, func(tx *store.Tx) error {
		return tx.Bucket(bucketPrefs).Range(nil, func(key, value []byte) error {
			d, ok := p.definitions[string(key)]
			if !ok {
				return nil // a newer version's
			}
			text, err := d.canonical(string(value))
			if err != nil {
				text = d.Default // the range became narrower
			}
			values[d.Name] = newSetting(d, text)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	p.values.Store(&values)
	return p, nil
}

// Int returns the value of an int preference. The name is one of the constants.
func (p *Preferences) Int(name string) int64 { return (*p.values.Load())[name].number }

// Bool returns the value of a bool preference, or whether an int one is not 0.
func (p *Preferences) Bool(name string) bool { return (*p.values.Load())[name].number != 0 }

// Text returns a preference as it is shown.
func (p *Preferences) Text(name string) string { return (*p.values.Load())[name].text }

// Preference is a definition with its current value.
type Preference struct {
	Definition
	Value string
}

// List returns the preferences whose name starts with prefix, by name.
func (p *Preferences) List(prefix string) []Preference {
	var out []Preference
	for _, name := range p.names {
		if strings.HasPrefix(name, prefix) {
			out = append(out, Preference{p.definitions[name], p.Text(name)})
		}
	}
	return out
}

// Set changes one preference; may says what the actor is permitted.
func (p *Preferences) Set(ctx context.Context, by Actor, may Permission, name, value string) (Preference, error) {
	d, ok := p.definitions[name]
	if !ok {
		return Preference{}, errkind.Errorf(errkind.NotFound, "no preference %q", name)
	}
	allowed := may.Has(MayAdminister) || d.ChangeableBy == RoleTokenAdmin && may.Has(MayAdministerTokens)
	if !allowed {
		return Preference{}, errkind.Errorf(errkind.Unauthorised, "preference %q can be changed with the role %q only", name, d.ChangeableBy)
	}
	text, err := d.canonical(value)
	if err != nil {
		return Preference{}, err
	}
	p.changes.Lock()
	defer p.changes.Unlock()
	before := p.Text(name)
	if before == text {
		return Preference{d, text}, nil
	}
	err = p.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Bucket(bucketPrefs).Put([]byte(name), []byte(text)); err != nil {
			return err
		}
		return p.audit(tx, auditlog.Entry{
			Time: p.clock.Now().UTC(), Kind: "preference.set", Actor: by.String(), Subject: name,
			Detail: map[string]string{"before": before, "after": text},
		})
	})
	if err != nil {
		return Preference{}, err
	}
	next := make(map[string]setting, len(p.names))
	for k, v := range *p.values.Load() {
		next[k] = v
	}
	next[name] = newSetting(d, text)
	p.values.Store(&next)
	return Preference{d, text}, nil
}

func (p *Preferences) policy() policy {
	n := func(name string) int { return int(p.Int(name)) }
	return policy{
		minLength: n(PrefPasswordMinLength), upper: n(PrefPasswordMinUpper), lower: n(PrefPasswordMinLower),
		digits: n(PrefPasswordMinDigits), symbols: n(PrefPasswordMinSymbols), history: n(PrefPasswordHistory),
	}
}

func (p *Preferences) hashCost() cost {
	return cost{memoryKiB: uint32(p.Int(PrefHashMemory)), passes: uint32(p.Int(PrefHashPasses))}
}
