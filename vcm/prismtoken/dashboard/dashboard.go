// Package dashboard gathers the state of a token service for those who watch
// it: the facts of getStatus, and a notice for each thing that needs attention.
package dashboard

import (
	"context"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/keystore"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Config is what a dashboard looks at. Optional facts may be left out.
type Config struct {
	Store        *store.Store
	Module       *tsm.Module
	ModuleBucket string // the bucket of the store that is the module's vault
	Keys         *keystore.Keystore
	Accounts     *accounts.Accounts
	// CertificateExpires is when the TLS certificate does.
	CertificateExpires func() time.Time
	// Host is the host's clock; the module tells its own.
	Host  clock.Clock
	Quota int64 // of the disk, bytes

	Address      string // host:port of the token service
	SerialNumber string // of the unit
	UID          string // of the VCM
	TPS          int    // rated transactions a second; 0 if not rated
	// Operations counts those of the module, ever.
	Operations func(context.Context) (uint64, error)
}

// Dashboard reports the state. It is safe for concurrent use.
type Dashboard struct{ cfg Config }

// New returns a dashboard.
func New(cfg Config) *Dashboard {
	if cfg.Host == nil {
		cfg.Host = clock.System()
	}
	return &Dashboard{cfg}
}

// Status is the state at one moment.
type Status struct {
	Info    map[string]string // keys as getStatus gives them
	Notices []Notice
}

// Time formats of the interface.
const (
	utcTime   = "20060102T150405Z"
	localTime = "2006-01-02 15:04:05 MST"
)

// version of the emulated firmware, in the form of the product's.
const firmwareVersion = "6.10.0.0"

// Status gathers facts and notices.
func (d *Dashboard) Status(ctx context.Context) (Status, error) {
	st, err := d.cfg.Module.Status(ctx)
	if err != nil {
		return Status{}, err
	}
	w := watch{cfg: d.cfg, prefs: d.cfg.Accounts.Preferences(), module: st, now: st.Clock.UTC()}
	if err := w.look(ctx); err != nil {
		return Status{}, err
	}
	info := d.info(st, w.drift())
	if d.cfg.Operations != nil {
		n, err := d.cfg.Operations(ctx)
		if err != nil {
			return Status{}, err
		}
		info["Counter"] = strconv.FormatUint(n, 10)
	}
	return Status{Info: info, Notices: w.notices}, nil
}

func (d *Dashboard) info(st tsm.Status, drift time.Duration) map[string]string {
	info := map[string]string{
		"ApiType":                 "vending",
		"FirmwareId":              st.FirmwareID,
		"HardwareId":              st.HardwareID,
		"ModuleId":                st.ModuleID,
		"TxCounter":               strconv.FormatUint(uint64(transactionsLeft(st.Licence)), 10),
		"port.Class":              "VCM",
		"port.Logical":            "VCM",
		"smcq.Nonce":              upperHex(st.Licence.Nonce),
		"smpd.AcMode":             "AC:NONE",
		"smpd.CertMode":           "NON-PCI-HSM,NON-FIPS", // an emulation is certified for nothing
		"smpd.FwApi":              "STS6",
		"smpd.FwBinary":           "BIN:STS6",
		"smpd.FwVer":              firmwareVersion,
		"smpd.HwFamily":           family(st.HardwareID),
		"smqd.WindowSize":         strconv.Itoa(int(st.Window / (24 * time.Hour))),
		"smqd.ex.RtcDriftSeconds": strconv.FormatInt(int64(drift/time.Second), 10),
		"smqd.ex.RtcTimeUtc":      st.Clock.UTC().Format(utcTime),
		"smqd.ex.RtcTimeLocal":    st.Clock.Local().Format(localTime),
		"smqi.FirmwareHashHex":    upperHex(st.FirmwareHash),
		"smqi.IdSm":               st.IDSM,
		"ex.Registers":            strconv.Itoa(st.Registers),
		"ex.RegistersUsed":        strconv.Itoa(st.RegistersUsed),
		"ex.StaTables":            st.STAName,
		"ex.StaTablesSha256":      st.STASHA256,
	}
	optional := map[string]string{"SerialNumber": d.cfg.SerialNumber, "port.Physical": d.cfg.Address, "smud.Uid": d.cfg.UID}
	if d.cfg.Address != "" {
		optional["port.Uri"] = "vcm://" + d.cfg.Address
	}
	if d.cfg.TPS > 0 {
		optional["smpd.Tps"] = strconv.Itoa(d.cfg.TPS)
	}
	if at := st.Licence.InhibitVend; !at.IsZero() {
		optional["smcq.ex.InhibitVendDateUtc"] = at.UTC().Format(utcTime)
		optional["smcq.ex.InhibitVendDateLocal"] = at.Local().Format(localTime)
	}
	if st.TestMode {
		optional["ex.TestMode"] = "True"
	}
	if strings.HasPrefix(st.FirmwareID, manufacturingFirmware) {
		info["ApiType"] = "manufacturing"
	}
	for k, v := range optional {
		if v != "" {
			info[k] = v
		}
	}
	return info
}

// Prefixes of firmware identifiers.
const (
	vendingFirmware       = "STS64V"
	manufacturingFirmware = "STS64M"
)

// transactionsLeft of a module that does not count them is the largest number.
func transactionsLeft(l tsm.Licence) uint32 {
	if !l.Loaded {
		return tsm.Unlimited
	}
	return l.Left
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// family is the hardware identifier without maker and revision.
func family(hardware string) string {
	if i := strings.Index(hardware, "TSM"); i >= 0 {
		name, _, _ := strings.Cut(hardware[i:], "-")
		return name
	}
	return hardware
}
