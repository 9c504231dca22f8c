package tsm

import (
	"context"
	"fmt"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

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
	Slots, SlotsUsed                 int
	Licence                          Licence
	STAName, STASHA256               string
}

// Licence is the transaction licence's state.
type Licence struct {
	// Loaded is false on a module that never had a licence: it vends without limit.
	Loaded      bool
	Left        uint32    // transactions left; Unlimited when they are not counted
	InhibitVend time.Time // no token after this instant; zero for never
	Nonce       []byte    // 8 octets, to be named in the next licence
}

// Slot is a KEK slot: what the module knows of one KMC.
type Slot struct {
	KMC        string
	KPN        int
	State      string // ACTIVE, PENDING or LOADING
	Request    bool   // a VKLOADREQ is unanswered
	TVP        string // of the newest VKLOADREQ, CCYYMMDDhhmmss
	Activates  time.Time
	Expires    time.Time // the last day of the KMC's public key
	Announced  int       // keys in the KLF being loaded
	Registers  int       // keys of this slot in the module
	SessionKID string
}

// Status reports the module's state; it works in the error state too.
func (m *Module) Status(ctx context.Context) (Status, error) {
	tables := m.engine.Load().Tables()
	st := Status{
		ModuleID: m.cfg.ModuleID, FirmwareID: m.cfg.FirmwareID, HardwareID: m.cfg.HardwareID,
		IDSM: m.IDSM(), PublicKeyID: keyload.SMIdentity(m.cfg.ModuleID, staticKeyNumber),
		FirmwareHash: m.firmwareHash(), TestMode: m.cfg.TestMode, Failure: m.Failure(),
		Clock: m.Now(), Window: m.cfg.Window, Registers: m.cfg.Registers, Slots: KEKSlots,
		STAName: tables.Name(), STASHA256: fmt.Sprintf("%x", tables.Fingerprint()),
	}
	err := m.cfg.Vault.View(ctx, func(tx Tx) error {
		var err error
		if st.Licence, err = getLicence(tx); err != nil {
			return err
		}
		all, err := slots(tx)
		if err != nil {
			return err
		}
		for _, s := range all {
			s.wipe()
		}
		st.SlotsUsed, st.RegistersUsed = len(all), 0
		return eachLimit(tx, func(int, limits) { st.RegistersUsed++ })
	})
	return st, err
}
