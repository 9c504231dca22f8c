package platform

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
)

// Licences is what the unit is entitled to: the factory's features in its
// warrant, and the licence files applied since.
type Licences struct {
	ledger   *ledger.Ledger
	id       hsmapi.Identity
	factory  licensing.Features
	mu       sync.RWMutex
	licences []licensing.Licence
	files    [][]byte
}

// OpenLicences reads the warrant and the stored licences, and checks each again.
func OpenLicences(l *ledger.Ledger, id hsmapi.Identity) (*Licences, error) {
	s := &Licences{ledger: l, id: id}
	if id.Warrant != "" {
		root, err := warrant.ParseKey(id.MakerRoot)
		if err != nil {
			return nil, errkind.Errorf(errkind.Integrity, "maker's root key: %w", err)
		}
		w, err := warrant.Read([]byte(id.Warrant), root)
		if err != nil {
			return nil, err
		}
		if err := w.Matches(id.ESN, id.UnitKey); err != nil {
			return nil, err
		}
		s.factory = w.Features
	}
	var files [][]byte
	err := l.View(func(tx ledger.Tx) (err error) {
		files, err = tx.Licences()
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		lic, err := s.read(f)
		if err != nil {
			return nil, fmt.Errorf("a stored licence: %w", err)
		}
		s.licences, s.files = append(s.licences, lic), append(s.files, f)
	}
	return s, nil
}

func (s *Licences) read(file []byte) (licensing.Licence, error) {
	if s.id.MakerRoot == "" {
		return licensing.Licence{}, errkind.Errorf(errkind.Mode, "the unit has no warrant yet, so it does not know its maker; install one with 'hsmd warrant'")
	}
	root, err := warrant.ParseKey(s.id.MakerRoot)
	if err != nil {
		return licensing.Licence{}, errkind.Errorf(errkind.Integrity, "maker's root key: %w", err)
	}
	return licensing.ReadLicence(file, root, s.id.ESN)
}

// Entitlement is what the unit may do now.
func (s *Licences) Entitlement() licensing.Entitlement {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return licensing.Effective(s.factory, s.licences)
}

// Apply stores a licence file with its audit entry, as the last one. Applying that
// one again changes nothing.
func (s *Licences) Apply(ctx context.Context, file []byte, log *Log, e auditlog.Entry) (licensing.Licence, error) {
	lic, err := s.read(file)
	if err != nil {
		return lic, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := slices.IndexFunc(s.files, func(have []byte) bool { return bytes.Equal(have, file) })
	if before >= 0 && before == len(s.files)-1 {
		return lic, nil
	}
	e.Kind, e.Subject = "unit.licence", s.id.ESN
	e.Detail = map[string]string{"type": string(lic.Type), "value": lic.Value(), "serial": lic.Serial}
	err = s.ledger.Update(ctx, func(tx ledger.Tx) error {
		if err := log.in(tx, e); err != nil {
			return err
		}
		return tx.AddLicence(file)
	})
	if err != nil {
		return lic, err
	}
	if before >= 0 {
		s.licences, s.files = slices.Delete(s.licences, before, before+1), slices.Delete(s.files, before, before+1)
	}
	s.licences, s.files = append(s.licences, lic), append(s.files, bytes.Clone(file))
	return lic, nil
}
