package tsm

import (
	"context"
	"fmt"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// storedTables is a set of STA tables as it is stored.
type storedTables struct {
	Name string
	JSON []byte
}

// LoadSTATables stores a set of STA substitution and permutation tables, in
// JSON (sub0, sub1, perm), under a name, and uses it from then on. The built-in
// set is iec-sample. Only an operator who is entitled to the production tables
// has them.
func (m *Module) LoadSTATables(ctx context.Context, name string, tables []byte) error {
	if err := m.ready(); err != nil {
		return err
	}
	if !keyload.IsIdent(name) || name == sts.IECSample().Name() {
		return refuse(CodeFormatError, "STA tables: %q is not a name for them (an identifier other than %s)", name, sts.IECSample().Name())
	}
	t, err := sts.ParseTables(name, tables)
	if err != nil {
		return refuse(CodeFormatError, "STA tables: %s", err)
	}
	err = m.update(ctx, func(tx Tx) error {
		if err := putJSON(tx, []byte(keySTA), storedTables{Name: name, JSON: tables}); err != nil {
			return err
		}
		return m.audit(tx, Event{Kind: "sta.load", Actor: actorOf(ctx), Subject: name, Detail: detail("sha256", fmt.Sprintf("%x", t.Fingerprint()))})
	})
	if err != nil {
		return err
	}
	m.engine.Store(sts.NewEngine(t, m.cfg.Cipher))
	return nil
}

// loadEngine makes the token engine of the tables in the vault.
func (m *Module) loadEngine(tx Tx) error {
	tables := sts.IECSample()
	var st storedTables
	found, err := getJSON(tx, []byte(keySTA), &st)
	if err != nil {
		return err
	}
	if found {
		if tables, err = sts.ParseTables(st.Name, st.JSON); err != nil {
			return fmt.Errorf("protected memory, STA tables: %w", err)
		}
	}
	m.engine.Store(sts.NewEngine(tables, m.cfg.Cipher))
	return nil
}
