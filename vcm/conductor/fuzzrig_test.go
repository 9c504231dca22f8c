package conductor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
)

// respondTo gives a line its CRC.
func respondTo(text string) []byte { return []byte(text + respondCRC([]byte(text))) }

func respondCRC(text []byte) string { return fmt.Sprintf("%04X", keyload.CRC16(text)) }

// openForFuzz returns a module without keys that forgets whatever it is told.
func openForFuzz(f *testing.F) *tsm.Module {
	f.Helper()
	v := forgetful{data: map[string]string{}, learning: true}
	m, err := tsm.Open(context.Background(), tsm.Config{Vault: &v, ModuleID: "89051616",
		Clock: clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))})
	if err != nil {
		f.Fatal(err)
	}
	v.learning = false
	return m
}

// forgetful is a vault that keeps what was written at Open and nothing since.
type forgetful struct {
	data     map[string]string
	learning bool
}

func (v *forgetful) View(_ context.Context, fn func(tsm.Tx) error) error {
	return fn(forgetfulTx(maps.Clone(v.data)))
}

func (v *forgetful) Update(_ context.Context, fn func(tsm.Tx) error) error {
	tx := forgetfulTx(maps.Clone(v.data))
	if err := fn(tx); err != nil {
		return err
	}
	if v.learning {
		v.data = tx
	}
	return nil
}

type forgetfulTx map[string]string

func (t forgetfulTx) Get(key []byte) ([]byte, error) {
	if v, ok := t[string(key)]; ok {
		return []byte(v), nil
	}
	return nil, nil
}
func (t forgetfulTx) Put(key, value []byte) error { t[string(key)] = string(value); return nil }
func (t forgetfulTx) Delete(key []byte) error     { delete(t, string(key)); return nil }
func (t forgetfulTx) Range(prefix []byte, fn func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(t)) {
		if strings.HasPrefix(k, string(prefix)) {
			if err := fn([]byte(k), []byte(t[k])); err != nil {
				return err
			}
		}
	}
	return nil
}
