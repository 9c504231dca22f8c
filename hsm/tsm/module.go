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
package tsm

import (
	"context"
	"crypto/ecdsa"
	"io"
	"time"

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

// Config is what a module is made of.
type Config struct {
	Vault      Vault
	ModuleID   string // 8 digits
	FirmwareID string // 8 characters; default STS64V10
	HardwareID string // default TSM500I
	Maker      string // in the module's identity record; default Tesserae
	// Created is when the module came into being; it is stored at first Open.
	Created   time.Time
	Clock     clock.Clock
	Rand      io.Reader // keys, nonces and the RND of tokens; default crypto/rand
	Registers int       // default 999; a TSM250 has 25
	Window    time.Duration
	// TestMode is the CTS mode of a unit that was started for compliance tests:
	// RND is 5, the TID window and IUT are not enforced. Status shows it.
	TestMode bool
	// FirmwareHash is reported by SM?QI; default: a hash of the build's identity.
	FirmwareHash []byte
	// InstructionKey verifies signed instructions (transaction licences).
	// Without it every instruction is refused.
	InstructionKey *ecdsa.PublicKey
	// ApprovalRoot verifies the approval signature of KMC public keys.
	ApprovalRoot *ecdsa.PublicKey
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
	cfg Config
}

// Open opens the module in its vault, making its identity at first use, and
// runs the self-tests. A module whose self-tests fail is returned too: it is in
// its error state, Failure says why, and every operation answers CodeAppError.
func Open(ctx context.Context, cfg Config) (*Module, error) { return &Module{cfg: cfg}, nil }

// Failure returns why the module is in its error state, or "".
func (m *Module) Failure() string { return "" }

// Status is the module at a glance.
type Status struct {
	ModuleID, FirmwareID, HardwareID string
	IDSM                             string // SMID.1:maker:module:created:fingerprint:crc
	PublicKeyID                      string // SMID;SMI...;SPN...
	FirmwareHash                     []byte
	TestMode                         bool
	Failure                          string // why the module is in its error state
	Clock                            time.Time
	Window                           time.Duration
	Registers, RegistersUsed         int
	Licence                          Licence
	STAName, STASHA256               string
}

// Licence is the transaction licence's state.
type Licence struct {
	// Loaded is false on a module that never had a licence: it vends without
	// limit, so that an emulator is usable before its maker's first licence.
	Loaded      bool
	Left        uint32    // transactions left; Unlimited when they are not counted
	InhibitVend time.Time // no token after this instant; zero for never
	Nonce       []byte    // 8 octets, to be named in the next licence
}

// Status reports the module's state.
func (m *Module) Status(ctx context.Context) (Status, error) { return Status{}, nil }

// IDSM returns the module's identity record as tokens carry it.
func (m *Module) IDSM() string { return "" }

// PublicKeyRecord returns the SM.PUBKEY.1 record that the module's maker sends
// to a KMC once.
func (m *Module) PublicKeyRecord() string { return "" }

// Now returns the module's clock.
func (m *Module) Now() time.Time { return m.cfg.Clock.Now() }

// Credit makes a class 0 token: SM?VC.
func (m *Module) Credit(tx Tx, in CreditInput) (Issued, error) { return Issued{}, nil }

// Management makes a class 2 token that is no key change: SM?VM.
func (m *Module) Management(tx Tx, in ManagementInput) (Issued, error) { return Issued{}, nil }

// KeyChange makes a set of key-change tokens: SM?VK.
func (m *Module) KeyChange(tx Tx, in KeyChangeInput) (KeySet, error) { return KeySet{}, nil }

// Verify decrypts a token and says what it is: SM?VT. A token that is not valid
// is no error; Verified.Result says what is wrong with it.
func (m *Module) Verify(tx Tx, in VerifyInput) (Verified, error) { return Verified{}, nil }

// Attributes returns what is in a register: SM?GA. CodeRegisterEmpty if nothing is.
func (m *Module) Attributes(tx Tx, register int) (Attributes, error) { return Attributes{}, nil }

// Registers returns the attributes of every loaded key, by register.
func (m *Module) Registers(tx Tx) ([]Attributes, error) { return nil, nil }

// Find returns the keys of a supply group and revision, newest base date first;
// revision 0 finds all of the group.
func (m *Module) Find(tx Tx, sgc, krn int) ([]Attributes, error) { return nil, nil }

// Slot is a KEK slot: what the module knows of one KMC.
type Slot struct {
	KMC        string
	KPN        int
	State      string // ACTIVE, PENDING or LOADING
	Request    bool   // a VKLOADREQ is unanswered
	TVP        string // of the newest VKLOADREQ, CCYYMMDDhhmmss
	Activates  time.Time
	Expires    time.Time
	Announced  int // keys in the KLF being loaded
	Registers  int // keys of this slot in the module
	SessionKID string
}

// Slots lists the KEK slots: SM?QK.
func (m *Module) Slots(tx Tx) ([]Slot, error) { return nil, nil }

// Approved reports whether a KMC.PUBKEY.1 record carries a valid approval
// signature by the configured root. Whether unapproved keys may be used is the
// host's policy.
func (m *Module) Approved(publicKeyRecord string) bool { return false }

// KeyAgreement starts a key agreement with a KMC and returns the VKLOAD.REQ.1
// record: SM?KC. Earlier requests to the same KMC can no longer be answered. An
// approval signature that is present must be valid.
func (m *Module) KeyAgreement(ctx context.Context, publicKeyRecord string) (request string, err error) {
	return "", nil
}

// KeyAgreementUnapproved is KeyAgreement for a host that overrides a bad approval signature.
func (m *Module) KeyAgreementUnapproved(ctx context.Context, publicKeyRecord string) (request string, err error) {
	return "", nil
}

// PendingRequest returns the newest VKLOAD.REQ.1 record of a KMC while it is
// unanswered, CodeKMCKeyState otherwise.
func (m *Module) PendingRequest(ctx context.Context, kmc string) (string, error) { return "", nil }

// ProcessResponse takes the KMC's VKLOAD.RSP.1: SM?KR. The slot's keys are
// erased, the slot is LOADING.
func (m *Module) ProcessResponse(ctx context.Context, responseRecord string) (kmc string, announced int, err error) {
	return "", 0, nil
}

// LoadKey loads one VK.WRAP.1 record: SM?KL. Register 0 chooses: the register
// that holds the same key, else the lowest free one.
func (m *Module) LoadKey(ctx context.Context, kmc, record string, register int) (Attributes, error) {
	return Attributes{}, nil
}

// Finish ends the key-agreement session of a slot: SM?KF. Nothing more can be
// loaded from that KLF.
func (m *Module) Finish(ctx context.Context, kmc string) (loaded int, err error) { return 0, nil }

// DeleteSlot erases a KEK slot and its keys: SM?KX.
func (m *Module) DeleteSlot(ctx context.Context, kmc string) (erased int, err error) { return 0, nil }

// DeleteKey erases one register: SM?KD.
func (m *Module) DeleteKey(ctx context.Context, register int) (kcv string, err error) { return "", nil }

// Instruction obeys a signed instruction: SM?CI. The signature is r and s, 48 octets each.
func (m *Module) Instruction(ctx context.Context, record string, signature []byte) error { return nil }

// LoadLicence finds a transaction licence between its guards inside any text
// and obeys it.
func (m *Module) LoadLicence(ctx context.Context, text string) (Licence, error) {
	return Licence{}, nil
}

// LogEntry returns audit entry n, from 1: SM?QL.
func (m *Module) LogEntry(ctx context.Context, n uint64) (Entry, error) { return Entry{}, nil }

// LoadSTATables stores a set of STA substitution and permutation tables, in
// JSON (sub0, sub1, perm), under a name. The built-in set is iec-sample.
func (m *Module) LoadSTATables(ctx context.Context, name string, tables []byte) error { return nil }
