package device

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/keyfd"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

const (
	// FirmwareID is this firmware: STS6, 4th generation, vending, version 10.
	FirmwareID = "STS64V10"
	// HardwareID is the emulated hardware, SmallHardwareID the family whose
	// modules have 25 vending-key registers.
	HardwareID      = "TSM500E1"
	SmallHardwareID = "TSM250E1"

	maxState = 1 << 20 // no file of the state folder but the journal is larger
)

// identity is identity.json.
type identity struct {
	ESN           string    `json:"esn"`
	ModuleID      string    `json:"moduleId"`
	FirmwareID    string    `json:"firmwareId"`
	HardwareID    string    `json:"hardwareId"`
	UnitKey       string    `json:"unitKey"`
	EncryptionKey string    `json:"encryptionKey"`
	Made          time.Time `json:"made"`
}

// keys is the plaintext of the file of that name.
type keys struct {
	UnitSeed   []byte `json:"unitSeed"`
	Encryption []byte `json:"encryption"`
}

func (id identity) place() []byte {
	return sealed.Place([]byte("keys"), []byte(id.ESN), []byte(id.ModuleID), []byte(id.UnitKey), []byte(id.EncryptionKey))
}

func (id identity) unit() warrant.Unit {
	return warrant.Unit{
		ESN: id.ESN, ModuleID: id.ModuleID, FirmwareID: id.FirmwareID, HardwareID: id.HardwareID,
		UnitKey: id.UnitKey, EncryptionKey: id.EncryptionKey,
	}
}

// Initialise makes a new unit in cfg.Dir with the given ESN ("" for a random
// one) and returns its identity request for the maker. It refuses a folder that
// holds a unit; one that an interrupted Initialise left is started anew.
func Initialise(cfg Config, esn string) (request []byte, err error) {
	cfg = cfg.withDefaults()
	if esn == "" {
		esn = randomESN()
	}
	if err := licensing.CheckESN(esn); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "partitions"), 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if exists(filepath.Join(cfg.Dir, "identity.json")) {
		return nil, errkind.Errorf(errkind.Mode, "%s already holds a unit; a unit is made once", cfg.Dir)
	}
	return makeUnit(cfg, esn)
}

func makeUnit(cfg Config, esn string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	encryption, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return nil, err
	}
	id := identity{
		ESN: esn, ModuleID: firstModuleID(esn), FirmwareID: FirmwareID, HardwareID: cfg.HardwareID,
		UnitKey:       strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))),
		EncryptionKey: base64.StdEncoding.EncodeToString(encryption.PublicKey().Bytes()),
		Made:          cfg.Clock.Now().UTC().Truncate(time.Second),
	}
	request, err := warrant.SignRequest(warrant.Request{Unit: id.unit(), Made: id.Made}, signer)
	if err != nil {
		return nil, err
	}
	root := make([]byte, sealed.KeySize)
	_, _ = rand.Read(root)
	defer clear(root)
	rootBox, err := cfg.Guard.Seal(root)
	if err != nil {
		return nil, err
	}
	boxes, err := rootBoxes(root)
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(keys{UnitSeed: private.Seed(), Encryption: encryption.Bytes()})
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	public, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"root", rootBox},
		{"keys", boxes.Seal(nil, plain, id.place())},
		{"identity-request", request},
		{"identity.json", append(public, '\n')}, // last: from here on the unit exists
	} {
		if err := atomicfile.Write(filepath.Join(cfg.Dir, f.name), f.data, 0o600); err != nil {
			return nil, fmt.Errorf("make unit: %w", err)
		}
	}
	return request, nil
}

func rootBoxes(root []byte) (*sealed.Key, error) {
	return sealed.New(root, "tesserae device root v1")
}

func randomESN() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%04X-%04X-%04X", b[0:2], b[2:4], b[4:6])
}

// firstModuleID is the unit's own module id. Its partitions count upwards from
// it. The maker has no registry of ranges: the start is spread by the ESN over
// 80 million ids, so that two units are unlikely to overlap.
func firstModuleID(esn string) string {
	sum := sha256.Sum256([]byte("tesserae module id " + esn))
	return fmt.Sprintf("%08d", 10_000_000+binary.BigEndian.Uint64(sum[:])%80_000_000)
}

func readIdentity(dir string) (identity, error) {
	p, err := atomicfile.Read(filepath.Join(dir, "identity.json"), maxState)
	if errors.Is(err, os.ErrNotExist) {
		return identity{}, errkind.Errorf(errkind.NotFound, "no unit in %s; make one with 'hsmd init --state %s'", dir, dir)
	}
	if err != nil {
		return identity{}, fmt.Errorf("identity: %w", err)
	}
	var id identity
	if err := decodeStrict(p, &id); err != nil {
		return identity{}, errkind.Errorf(errkind.Integrity, "identity.json is damaged: %w", err)
	}
	return id, nil
}

func decodeStrict(p []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("trailing data")
	}
	return nil
}

// unlock opens the root and everything under it. An error of kind Mode means
// that the unit is tampered.
func (u *Unit) unlock() error {
	if exists(u.tamperMarker()) {
		return errors.Join(u.tamperedError("it saw a tamper event"), u.cfg.Guard.Erase())
	}
	box, err := atomicfile.Read(filepath.Join(u.cfg.Dir, "root"), maxState)
	if err != nil {
		return fmt.Errorf("root key: %w", err)
	}
	root, err := u.cfg.Guard.Open(box)
	if errkind.Is(err, errkind.Mode) {
		return u.tamperedError(err.Error())
	}
	if err != nil {
		return err
	}
	defer clear(root)
	if u.root, err = keyfd.New(root); err != nil {
		return err
	}
	if u.boxes, err = rootBoxes(root); err != nil {
		return err
	}
	return u.readKeys()
}

func (u *Unit) readKeys() error {
	box, err := atomicfile.Read(filepath.Join(u.cfg.Dir, "keys"), maxState)
	if err != nil {
		return fmt.Errorf("unit keys: %w", err)
	}
	plain, err := u.boxes.Open(nil, box, u.id.place())
	if err != nil {
		return errkind.Errorf(errkind.Integrity, "the unit's keys do not belong to identity.json")
	}
	defer clear(plain)
	var k keys
	if err := decodeStrict(plain, &k); err != nil || len(k.UnitSeed) != ed25519.SeedSize {
		return errkind.Errorf(errkind.Integrity, "the unit's keys are damaged")
	}
	defer clear(k.UnitSeed)
	defer clear(k.Encryption)
	if u.signer, err = ssh.NewSignerFromSigner(ed25519.NewKeyFromSeed(k.UnitSeed)); err != nil {
		return err
	}
	if u.decrypt, err = ecdh.X25519().NewPrivateKey(k.Encryption); err != nil {
		return err
	}
	return u.readMakerRoot()
}

// Identity says who the unit is.
func (u *Unit) Identity() hsmapi.Identity {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.identity()
}

func (u *Unit) identity() hsmapi.Identity {
	file, err := atomicfile.Read(u.warrantPath(), maxState)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		u.cfg.Log.Error("the warrant is unreadable", "error", err)
	}
	return hsmapi.Identity{
		ESN: u.id.ESN, ModuleID: u.id.ModuleID, FirmwareID: u.id.FirmwareID, HardwareID: u.id.HardwareID,
		UnitKey: u.id.UnitKey, EncryptionKey: u.id.EncryptionKey,
		Warrant: string(file), MakerRoot: u.makerRoot,
		TestMode: u.cfg.TestMode, Tampered: u.tampered != nil,
	}
}
