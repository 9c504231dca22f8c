// Package tsm is the STS6 firmware of one security module: the only code that
// touches vending keys.
//
// A module keeps up to 999 vending-key registers and four KEK slots, one for
// each Key Management Centre, in a Vault. Every operation is one transaction of
// that vault: a power cut leaves the state before the operation or after it.
// Vending takes its caller's transaction, so that the caller's token identifier,
// the module's debit, the result and the audit entry are one durable write.
//
// Transaction functions may run more than once. The module therefore keeps
// nothing in memory that a transaction decides; what it caches (expanded keys)
// is addressed by its content.
//
// # Slot states
//
// A slot is LOADING while it holds a session key, otherwise PENDING while a
// VKLOADREQ is unanswered, otherwise ACTIVE. On vending firmware the keys of a
// LOADING slot do not vend.
//
// # Transaction licence
//
// A module that never had a licence vends without limit, so that an emulator is
// usable before its maker's first licence. From the first licence on,
// transactions are counted and vending ends on the licence's date.
//
// # Choices
//
// The standards leave these open, or their texts are not public: the token
// window is one day to either side; a key's EXP is enforced like its expiry
// number; a limit is debited by the decoded value and a refund is not credited
// back; ACT is enforced for every token; one command is one transaction of the
// licence, however many tokens it makes.
package tsm

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/clock"
)

// Limits of the hardware families.
const (
	RegistersTSM500 = 999
	RegistersTSM250 = 25
	KEKSlots        = 4
)

// DefaultWindow is how far a token identifier may be from the module's clock.
const DefaultWindow = 24 * time.Hour

// testModeSuffix marks the hardware id of a module in test mode.
const testModeSuffix = "-CTS"

// staticKeyNumber is the number of the module's static key: it has one for life.
const staticKeyNumber = 1

// Config is what a module is made of.
type Config struct {
	Vault      Vault
	ModuleID   string // 8 digits
	FirmwareID string // 8 characters; default STS64V10
	HardwareID string // default TSM500I
	Maker      string // in the module's identity record; default Tesserae
	// Created is when the module came into being; default the time of the first
	// Open. It is stored then and does not change.
	Created   time.Time
	Clock     clock.Clock
	Rand      io.Reader     // keys, nonces and the RND of tokens; default crypto/rand
	Registers int           // 1 to 999; default what the hardware has
	Window    time.Duration // default DefaultWindow
	// TestMode is the CTS mode of a unit that was started for compliance tests:
	// RND is 5, the TID window and IUT are not enforced. Status shows it, and the
	// hardware id, which SM?QI and every VKLOADREQ carry, ends in -CTS.
	TestMode bool
	// Cipher selects how token ciphers are computed; default in constant time.
	Cipher sts.Variant
	// FirmwareHash names the firmware's code. If it is given, VKLOADREQs carry
	// it; SM?QI otherwise reports a hash of the build's identity.
	FirmwareHash []byte
	// InstructionKey verifies signed instructions (transaction licences).
	// Without it every instruction is refused.
	InstructionKey *ecdsa.PublicKey
	// FindInstructionKey, where InstructionKey is not given, finds it when the
	// first instruction comes. It may find none.
	FindInstructionKey func() (*ecdsa.PublicKey, error)
	// Audit appends to the audit log in the operation's own transaction. If it
	// fails, the operation fails. AuditEntry reads entry n (from 1) back for
	// SM?QL and reports whether there is one. Both may be nil.
	Audit      func(Tx, Event) error
	AuditEntry func(tx Tx, n uint64) (Entry, bool, error)
	// BreakSelfTest names a self-test whose input is corrupted, so that a test
	// can prove that it is able to fail.
	BreakSelfTest string
}

// Module is one security module.
type Module struct {
	cfg     Config
	profile profile
	failure atomic.Pointer[string] // why the module is in its error state
	late    lateTests
	static  func() *ecdh.PrivateKey // computed at its first use
	idSM    func() string
	created time.Time
	engine  atomic.Pointer[sts.Engine]
	cache   keyCache

	// What vending uses again and again.
	pairs    sync.Pool // of *[][2]string
	searches sync.Pool // of *search

	trust    atomic.Pointer[Trust]
	trusting sync.Mutex // held while trust is changed
}

// identity is the module's identity as it is stored.
type identity struct {
	Created time.Time
	Private []byte
}

// Open opens the module in its vault, making its identity at first use, and
// runs the self-tests of what tokens are made with; those of key agreement and
// signatures run before either is used first. A module whose self-tests fail is
// in its error state: Failure says why, and every operation answers CodeAppError.
func Open(ctx context.Context, cfg Config) (*Module, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	m := &Module{cfg: cfg, cache: keyCache{keys: make(map[contentID]*cachedKey)}}
	var known bool
	if m.profile, known = profileOf(cfg.FirmwareID); !known {
		return nil, fmt.Errorf("open module %s: unknown firmware %q", cfg.ModuleID, cfg.FirmwareID)
	}
	m.engine.Store(sts.NewEngine(nil, cfg.Cipher))
	m.trust.Store(&Trust{})
	if err := m.loadIdentity(ctx); err != nil {
		return nil, fmt.Errorf("open module %s: %w", cfg.ModuleID, err)
	}
	if err := runSelfTests(atOpen, cfg.BreakSelfTest, cfg.Cipher); err != nil {
		m.fail(err)
		if err := m.recordFailure(ctx); err != nil {
			return nil, fmt.Errorf("open module %s: %w", cfg.ModuleID, err)
		}
	}
	return m, nil
}

func (c *Config) complete() error {
	if c.Vault == nil || c.Clock == nil {
		return errors.New("open module: it needs a vault and a clock")
	}
	if len(c.ModuleID) != 8 || strings.Trim(c.ModuleID, "0123456789") != "" {
		return fmt.Errorf("open module: module id %q has not 8 digits", c.ModuleID)
	}
	if c.FirmwareID == "" {
		c.FirmwareID = "STS64V10"
	}
	if c.HardwareID == "" {
		c.HardwareID = "TSM500I"
	}
	if c.TestMode {
		c.HardwareID += testModeSuffix
	}
	if c.Maker == "" {
		c.Maker = "Tesserae"
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Registers == 0 {
		c.Registers = RegistersTSM500
		if strings.HasPrefix(c.HardwareID, "TSM250") {
			c.Registers = RegistersTSM250
		}
	}
	if c.Registers < 1 || c.Registers > RegistersTSM500 {
		return fmt.Errorf("open module: %d registers is not 1 to %d", c.Registers, RegistersTSM500)
	}
	if c.Window == 0 {
		c.Window = DefaultWindow
	}
	return nil
}

// loadIdentity reads the module's identity and makes it at first use, with the
// licence's first nonce, in one write.
func (m *Module) loadIdentity(ctx context.Context) error {
	known := false
	read := func(tx Tx) error {
		var id identity
		found, err := getJSON(tx, []byte(keyIdentity), &id)
		if err != nil || !found {
			return err
		}
		defer clear(id.Private)
		if err := keyload.CheckScalar(id.Private); err != nil {
			return fmt.Errorf("protected memory, static key: %w", err)
		}
		m.keep(id.Private)
		m.created, known = id.Created, true
		if err := m.loadTrust(tx); err != nil {
			return err
		}
		return m.loadEngine(tx)
	}
	if err := m.cfg.Vault.View(ctx, read); err != nil || known {
		return err
	}
	return m.cfg.Vault.Update(ctx, func(tx Tx) error {
		scalar, err := keyload.NewScalar(m.cfg.Rand)
		if err != nil {
			return err
		}
		defer clear(scalar)
		nonce, err := m.newNonce()
		if err != nil {
			return err
		}
		created := m.cfg.Created
		if created.IsZero() {
			created = m.Now()
		}
		if err := putJSON(tx, []byte(keyIdentity), identity{Created: created.UTC().Truncate(time.Second), Private: scalar}); err != nil {
			return err
		}
		if err := putLicence(tx, Licence{Left: Unlimited, Nonce: nonce}); err != nil {
			return err
		}
		if err := m.audit(tx, Event{Kind: "module.create", Subject: m.cfg.ModuleID, Detail: detail("firmware", m.cfg.FirmwareID)}); err != nil {
			return err
		}
		return read(tx)
	})
}

// keep makes a scalar that was checked the module's static key. The point that
// belongs to it, a tenth of a VCM's start, is computed when somebody asks.
func (m *Module) keep(scalar []byte) {
	scalar = bytes.Clone(scalar)
	m.static = sync.OnceValue(func() *ecdh.PrivateKey {
		defer clear(scalar)
		key, err := ecdh.P384().NewPrivateKey(scalar)
		if err != nil { // it was checked
			panic("static key: " + err.Error())
		}
		return key
	})
	m.idSM = sync.OnceValue(func() string {
		digest := sha256.Sum256(m.static().PublicKey().Bytes())
		body := fmt.Sprintf("SMID.1:%s:%s:%s:%X:", m.cfg.Maker, m.cfg.ModuleID, m.created.UTC().Format("20060102T150405Z"), digest[:8])
		return fmt.Sprintf("%s%04X", body, keyload.CRC16([]byte(body)))
	})
}

// Failure returns why the module is in its error state, or "".
func (m *Module) Failure() string {
	if why := m.failure.Load(); why != nil {
		return *why
	}
	return ""
}

// Now returns the module's clock.
func (m *Module) Now() time.Time { return m.cfg.Clock.Now() }

// Vault returns the module's vault, for a caller that vends in transactions of its own.
func (m *Module) Vault() Vault { return m.cfg.Vault }

// IDSM returns the module's identity record as tokens carry it.
func (m *Module) IDSM() string { return m.idSM() }

// PublicKeyRecord returns the SM.PUBKEY.1 record that the module's maker sends
// to a KMC once.
func (m *Module) PublicKeyRecord() string {
	return keyload.SMPublicKey{
		ModuleID: m.cfg.ModuleID, SPN: staticKeyNumber, HardwareID: m.cfg.HardwareID, FirmwareID: m.cfg.FirmwareID,
		Curve: keyload.CurveName, Point: m.static().PublicKey().Bytes(),
	}.Record().String()
}

// firmwareHash is the configured hash, or one of the build's identity.
func (m *Module) firmwareHash() []byte {
	if m.cfg.FirmwareHash != nil {
		return m.cfg.FirmwareHash
	}
	build := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		build = info.String()
	}
	digest := sha256.Sum256([]byte(m.cfg.FirmwareID + "\n" + build))
	return digest[:8]
}
