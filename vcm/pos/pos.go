// Package pos is the point-of-sale application process between a vending
// client and the security module: it picks token identifiers, decides
// automatic key changes, converts amounts, and remembers results.
//
// # One durable step
//
// Every issuing call is one transaction of the VCM's store. It holds the
// meter's new token identifier, the module's limit debit and audit entry, and
// the result for a later fetch. The tokens leave only after it is durable.
// Whatever crashes when, a token was never seen, or all of its traces exist.
//
// # No identifier twice
//
// A meter accepts one token for each token identifier and base date, whatever
// the token says. The package therefore never lets two different tokens of
// one meter leave with the same pair. The ordinary path moves a duplicate
// forward in time. The flags TID_ADJUST_BDT and SPECIAL_RESERVED name their
// minute, so it cannot be moved: asked again for the same token under the same
// key, the call answers the very token issued before, without a second debit;
// asked for a different one, it is refused. See tid.go.
package pos

import (
	"log/slog"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Module is what the point of sale asks of the security module.
type Module interface {
	Credit(tx tsm.Tx, in tsm.CreditInput) (tsm.Issued, error)
	Management(tx tsm.Tx, in tsm.ManagementInput) (tsm.Issued, error)
	KeyChange(tx tsm.Tx, in tsm.KeyChangeInput) (tsm.KeySet, error)
	Verify(tx tsm.Tx, in tsm.VerifyInput) (tsm.Verified, error)
	Find(tx tsm.Tx, sgc, krn int) ([]tsm.Attributes, error)
	IDSM() string
}

// Keys explains why a vending key is not in the module.
type Keys interface {
	Missing(tx *store.Tx, sgc, krn int) (reason string, err error)
}

// Config is what a point of sale needs.
type Config struct {
	Store  *store.Store
	Module Module
	// ModuleBucket is the bucket of the store that is the module's vault.
	ModuleBucket string
	Keys         Keys
	Preferences  *accounts.Preferences
	Clock        clock.Clock
	FirmwareID   string
	TestMode     bool // CTS mode
	// Audit appends to the audit log in the caller's transaction.
	Audit accounts.AuditFunc
	Log   *slog.Logger
}

// Service issues tokens. It is safe for concurrent use.
type Service struct {
	store        *store.Store
	module       Module
	moduleBucket string
	keys         Keys
	prefs        *accounts.Preferences
	clock        clock.Clock
	firmware     string
	testMode     bool
	audit        accounts.AuditFunc
	idSM         func() string // the module's identity record, which every token names
	log          *slog.Logger
	progress     progress
	buffers      sync.Pool // of *[]byte, for what is put
	steps        sync.Pool // of *step
}

// New returns a point of sale.
func New(cfg Config) (*Service, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{
		store: cfg.Store, module: cfg.Module, moduleBucket: cfg.ModuleBucket, keys: cfg.Keys,
		prefs: cfg.Preferences, clock: cfg.Clock, firmware: cfg.FirmwareID, testMode: cfg.TestMode, audit: cfg.Audit,
		idSM: cfg.Module.IDSM, log: cfg.Log,
	}, nil
}

func (s *Service) now() time.Time { return s.clock.Now().UTC() }

// Caller is who asks. Results are kept for, and shown to, the same caller only.
type Caller struct {
	Realm    string
	Username string
}

// Issue asks for a credit or engineering token.
type Issue struct {
	Caller    Caller
	MessageID string
	Meter     MeterConfig
	Subclass  int
	Amount    float64
	Time      int64
	Flags     int64
}

// Control asks for a token that sets a flag or a register of a meter.
type Control struct {
	Caller    Caller
	MessageID string
	Meter     MeterConfig
	IsFlag    bool
	Index     int
	Value     int
	Time      int64
	Flags     int64
}

// KeyChange asks for a key-change set.
type KeyChange struct {
	Caller    Caller
	MessageID string
	Meter     MeterConfig
	New       Amendment
}

// Verify asks what a token says.
type Verify struct {
	Meter    MeterConfig
	TokenDec string
}

// MeterTest asks for a class 1 token.
type MeterTest struct {
	Subclass     int
	Control      int64
	Manufacturer int
}
