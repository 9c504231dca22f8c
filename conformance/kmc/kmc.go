// Package kmc is a test Key Management Centre: it keeps supply groups and their
// vending keys, learns the public keys of security modules, and answers their
// VKLOADREQs with key load files.
//
// It is for tests and demonstrations only. Its keys are test keys, kept in clear
// in a file of its folder that only its owner may read; vending keys can be
// imported and exported. It shares the record grammar and the key agreement
// with the module (hsm/keyload) and nothing else.
package kmc

import (
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	stateFormat = "tesserae-test-kmc/1"
	stateFile   = "kmc.json"
	maxState    = 16 << 20
)

// KMC is an open Key Management Centre. Changes are durable when a method returns.
type KMC struct {
	dir   string
	rand  io.Reader
	state state
}

type state struct {
	Format  string              `json:"format"`
	Name    string              `json:"name"`
	Keys    []keyPair           `json:"keys"`
	Modules []Module            `json:"modules"`
	Groups  []Group             `json:"groups"`
	KUA     map[string][]string `json:"keyUseAuthorisations"` // module id to group names
}

// keyPair is one of the KMC's static keys; the newest is the one it publishes.
type keyPair struct {
	KPN       int       `json:"kpn"`
	Private   string    `json:"private"`
	Activates time.Time `json:"activates"`
	Expires   time.Time `json:"expires"`
}

// Module is a security module that the KMC knows through its maker.
type Module struct {
	ID         string `json:"id"`
	FirmwareID string `json:"firmwareId"`
	HardwareID string `json:"hardwareId"`
	Record     string `json:"record"` // SM.PUBKEY.1
	// Unit is the ESN of the unit that holds the module, as its maker and the
	// unit attest; empty where the KMC did not check.
	Unit string `json:"unit,omitempty"`
}

// Init makes a KMC in dir, with its first key pair.
func Init(dir, name string, activates, expires time.Time, rand io.Reader) (*KMC, error) {
	if !keyload.IsIdent(name) {
		return nil, errkind.Errorf(errkind.Invalid, "KMC name %q is not an identifier: 1 to 40 letters, digits and _ - . , beginning with a letter or digit", name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the KMC's folder: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, stateFile)); err == nil {
		return nil, errkind.Errorf(errkind.Refused, "%s already holds a KMC", dir)
	}
	k := &KMC{dir: dir, rand: rand, state: state{Format: stateFormat, Name: name, KUA: map[string][]string{}}}
	return k, k.Roll(activates, expires)
}

// Open opens the KMC in dir.
func Open(dir string, rand io.Reader) (*KMC, error) {
	raw, err := atomicfile.Read(filepath.Join(dir, stateFile), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.Errorf(errkind.NotFound, "%s holds no KMC; make one with 'kmc init'", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open the KMC: %w", err)
	}
	k := &KMC{dir: dir, rand: rand}
	if err := json.Unmarshal(raw, &k.state); err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the KMC's state in %s: %w", dir, err)
	}
	if k.state.Format != stateFormat || len(k.state.Keys) == 0 {
		return nil, errkind.Errorf(errkind.Integrity, "%s holds no KMC of the form %s", dir, stateFormat)
	}
	if k.state.KUA == nil {
		k.state.KUA = map[string][]string{}
	}
	return k, nil
}

func (k *KMC) save() error {
	raw, err := json.MarshalIndent(k.state, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(k.dir, stateFile), append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("save the KMC: %w", err)
	}
	return nil
}

// Name returns the KMC's name, its KMCID.
func (k *KMC) Name() string { return k.state.Name }

// Roll makes a new key pair, which is published from then on. Requests made for
// older keys are still answered while those are valid.
func (k *KMC) Roll(activates, expires time.Time) error {
	activates, expires = activates.UTC().Truncate(24*time.Hour), expires.UTC().Truncate(24*time.Hour)
	if !activates.Before(expires) {
		return errkind.Errorf(errkind.Invalid, "the key would expire on %s, not after its activation on %s",
			expires.Format(time.DateOnly), activates.Format(time.DateOnly))
	}
	key, err := keyload.NewPrivateKey(k.rand)
	if err != nil {
		return err
	}
	k.state.Keys = append(k.state.Keys, keyPair{
		KPN: len(k.state.Keys) + 1, Private: hex.EncodeToString(key.Bytes()), Activates: activates, Expires: expires,
	})
	return k.save()
}

func (p keyPair) private() (*ecdh.PrivateKey, error) {
	raw, err := hex.DecodeString(p.Private)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the KMC's key %d is damaged", p.KPN)
	}
	return ecdh.P384().NewPrivateKey(raw)
}

// PublicKey returns the newest public key.
func (k *KMC) PublicKey() (keyload.KMCPublicKey, error) {
	p := k.state.Keys[len(k.state.Keys)-1]
	key, err := p.private()
	if err != nil {
		return keyload.KMCPublicKey{}, err
	}
	return keyload.KMCPublicKey{
		KMC: k.state.Name, KPN: p.KPN, Activates: p.Activates, Expires: p.Expires,
		Curve: keyload.CurveName, Point: key.PublicKey().Bytes(),
	}, nil
}

// AddAttestedModule is AddModule for a public key that the unit holding the
// module and the unit's maker vouch for.
func (k *KMC) AddAttestedModule(text string, maker ssh.PublicKey) (Module, error) {
	esn, err := Attested(text, maker)
	if err != nil {
		return Module{}, err
	}
	return k.addModule(text, esn)
}

// AddModule makes a security module known, or replaces its public key, which is
// trusted as it is.
func (k *KMC) AddModule(text string) (Module, error) { return k.addModule(text, "") }

func (k *KMC) addModule(text, esn string) (Module, error) {
	key, err := keyload.ParseSMPublicKeyText(text)
	if err != nil {
		return Module{}, err
	}
	m := Module{ID: key.ModuleID, FirmwareID: key.FirmwareID, HardwareID: key.HardwareID, Record: key.Record().String(), Unit: esn}
	k.state.Modules = slices.DeleteFunc(k.state.Modules, func(o Module) bool { return o.ID == m.ID })
	k.state.Modules = append(k.state.Modules, m)
	slices.SortFunc(k.state.Modules, func(a, b Module) int { return strings.Compare(a.ID, b.ID) })
	return m, k.save()
}

// Modules returns the known modules, by id.
func (k *KMC) Modules() []Module { return slices.Clone(k.state.Modules) }

func (k *KMC) module(id string) (keyload.SMPublicKey, error) {
	for _, m := range k.state.Modules {
		if m.ID == id {
			return keyload.ParseSMPublicKeyText(m.Record)
		}
	}
	return keyload.SMPublicKey{}, errkind.Errorf(errkind.NotFound, "KMC %s does not know module %s; add its public key with 'kmc module add'", k.state.Name, id)
}
