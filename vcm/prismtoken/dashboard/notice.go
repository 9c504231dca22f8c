package dashboard

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Notice is one thing that needs attention. Codes are stable.
type Notice struct {
	Code string
	Text string
}

// Codes of notices.
const (
	InhibitVendDate    = "PToken.InhibitVendDate"
	TransactionsLow    = "PToken.TransactionsLow"
	KeyRefresh         = "PToken.KeyRefresh"
	KeyExpiry          = "PToken.KeyExpiry"
	KeyCannotVend      = "PToken.KeyCannotVend"
	KeyLimitLow        = "PToken.KeyLimitLow"
	ClockDrift         = "PToken.RtcDrift"
	Firmware           = "PToken.Firmware"
	SelfTest           = "PToken.SelfTest"
	TestMode           = "PToken.TestMode"
	NoVendingKeys      = "PToken.NoVendingKeys"
	KMCKeyExpiry       = "PToken.KmcKeyExpiry"
	SlotLoading        = "PToken.SlotLoading"
	CertificateExpiry  = "TsmWeb.CertificateExpiry"
	AccountExpiry      = "TsmWeb.AccountExpiry"
	PasswordExpiry     = "TsmWeb.PasswordExpiry"
	FirstPasswordUnset = "TsmWeb.FirstPassword"
	DiskSpace          = "TsmWeb.DiskSpace"
	ReadOnly           = "TsmWeb.ReadOnly"
)

// Codes lists every notice code.
func Codes() []string {
	return []string{
		InhibitVendDate, TransactionsLow, KeyRefresh, KeyExpiry, KeyCannotVend, KeyLimitLow, ClockDrift, Firmware, SelfTest,
		TestMode, NoVendingKeys, KMCKeyExpiry, SlotLoading, CertificateExpiry, AccountExpiry, PasswordExpiry, FirstPasswordUnset,
		DiskSpace, ReadOnly,
	}
}

// watch is one look at everything that can need attention.
type watch struct {
	cfg     Config
	prefs   *accounts.Preferences
	module  tsm.Status
	now     time.Time // the module's
	notices []Notice
}

func (w *watch) add(code, format string, args ...any) {
	w.notices = append(w.notices, Notice{code, fmt.Sprintf(format, args...)})
}

// within reports whether t is less than a preference's days away, or past.
func (w *watch) within(t time.Time, pref string) bool {
	return !t.IsZero() && t.Before(w.now.AddDate(0, 0, int(w.prefs.Int(pref))))
}

func (w *watch) look(ctx context.Context) error {
	w.lookAtModule()
	if w.module.Failure == "" {
		if err := w.lookAtKeys(ctx); err != nil {
			return err
		}
	}
	w.lookAtHost()
	return nil
}

func (w *watch) drift() time.Duration { return w.module.Clock.Sub(w.cfg.Host.Now()).Round(time.Second) }

func (w *watch) lookAtModule() {
	m := w.module
	if m.Failure != "" {
		w.add(SelfTest, "The security module is in its error state: %s. Action: contact your vendor.", m.Failure)
	}
	if !supports(m.FirmwareID, w.prefs.Bool(accounts.PrefManufacturingMode)) {
		w.add(Firmware, "The SM has unrecognised firmware '%s' which is not supported by PrismToken. Action: contact your vendor.", m.FirmwareID)
	}
	if m.TestMode {
		w.add(TestMode, "The security module is in CTS test mode: its tokens are predictable and must not be sold.")
	}
	if l := m.Licence; l.Loaded {
		if w.within(l.InhibitVend, accounts.PrefInhibitVendWarning) {
			w.add(InhibitVendDate, "The Inhibit Vend Date is %s. Action: load a transaction license.", date(l.InhibitVend))
		}
		if int64(l.Left) < w.prefs.Int(accounts.PrefTxCounterLow) || l.Left == 0 {
			w.add(TransactionsLow, "%d transactions are left. Action: load a transaction license.", l.Left)
		}
	}
	if d := w.drift(); int64(d.Abs()/time.Second) > w.prefs.Int(accounts.PrefRTCDriftHigh) {
		w.add(ClockDrift, "The module's clock differs from the host's by %d seconds. Action: synchronise the host; above 24 hours contact your vendor.", int64(d/time.Second))
	}
}

// supports reports whether the token service goes with a firmware.
func supports(firmware string, manufacturing bool) bool {
	return strings.HasPrefix(firmware, vendingFirmware) || manufacturing && strings.HasPrefix(firmware, manufacturingFirmware)
}

func (w *watch) lookAtKeys(ctx context.Context) error {
	var keys []tsm.Attributes
	var low group
	err := w.cfg.Store.View(ctx, func(tx *store.Tx) error {
		var err error
		low = group{}
		if keys, err = w.cfg.Module.Registers(tx.Bucket(w.cfg.ModuleBucket)); err != nil {
			return err
		}
		for _, k := range keys {
			units, currency, known, err := w.cfg.Keys.Granted(tx, k)
			if err != nil {
				return err
			}
			if known && k.VND && (w.low(k.ULM, units) || w.low(k.CLM, currency)) {
				low.add(k, "")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		w.add(NoVendingKeys, "No vending key is loaded. Action: get a Key Load File from the KMC and load its keys.")
	}
	centres, err := w.cfg.Keys.Centres(ctx)
	if err != nil {
		return err
	}
	loading := make(map[string]bool)
	for _, c := range centres {
		if w.within(c.Expires, accounts.PrefKeyExpiryWarning) {
			w.add(KMCKeyExpiry, "The public key of KMC %s expires on %s. Action: ask the KMC for its current public key.", c.KMC, date(c.Expires))
		}
		if c.State == "LOADING" {
			loading[c.KMC] = true
			w.add(SlotLoading, "KMC %s is in LOADING state and its vending keys cannot vend. Action: load its vending keys and end the key agreement session.", c.KMC)
		}
	}
	w.lookAtEach(keys, loading)
	low.notice(w, KeyLimitLow, "Little is left of the unit or currency limit of %s. Action: get a fresh Key Load File from the KMC.")
	return nil
}

// low reports whether little is left of what the KMC granted.
func (w *watch) low(left, granted uint32) bool {
	percent := uint64(w.prefs.Int(accounts.PrefLimitWarning))
	return granted != tsm.Unlimited && uint64(left)*100 < uint64(granted)*percent
}

func (w *watch) lookAtEach(keys []tsm.Attributes, loading map[string]bool) {
	var refresh, expiry, mute group
	for _, k := range keys {
		iut := w.within(k.IUT, accounts.PrefKeyRefreshWarning)
		if iut {
			refresh.add(k, date(k.IUT))
		}
		end := sts.BaseDate(k.BDT).Time(sts.KEN(k.KEN).LastTID())
		if !k.EXP.IsZero() && k.EXP.Before(end) {
			end = k.EXP
		}
		exp := w.within(end, accounts.PrefKeyExpiryWarning)
		if exp {
			expiry.add(k, date(end))
		}
		// A default key never vends credit, and other causes have their own notice.
		if !k.VND && !iut && !exp && k.KTC != tsm.VDDK && !loading[k.KMC] && !w.licenceStops() {
			mute.add(k, k.Reason)
		}
	}
	refresh.notice(w, KeyRefresh, "Issued Until (IUT) is near or past for %s. Action: get a fresh Key Load File from the KMC.")
	expiry.notice(w, KeyExpiry, "Expiry (EXP or KEN) is near or past for %s. Action: contact the supply group's owner.")
	mute.notice(w, KeyCannotVend, "Cannot vend (VND=0): %s. Action: inspect the vending key; its unit or currency limit may be used up.")
}

func (w *watch) licenceStops() bool {
	l := w.module.Licence
	return l.Loaded && (l.Left == 0 || !l.InhibitVend.IsZero() && w.now.After(l.InhibitVend))
}

func (w *watch) lookAtHost() {
	if w.cfg.CertificateExpires != nil {
		if at := w.cfg.CertificateExpires(); w.within(at, accounts.PrefCertificateWarning) {
			w.add(CertificateExpiry, "The TLS certificate expires on %s. Action: generate or import a new one and distribute it to clients.", date(at))
		}
	}
	var expiring, passwords int
	for _, u := range w.cfg.Accounts.Users() {
		if u.Username == accounts.BuiltIn && !u.PasswordSet && !u.Disabled {
			w.add(FirstPasswordUnset, "The built-in user has no password. Action: set one, or disable the user.")
		}
		if u.Disabled {
			continue
		}
		if w.within(u.AccountExpires, accounts.PrefExpiryWarning) {
			expiring++
		}
		if w.within(u.PasswordExpires, accounts.PrefExpiryWarning) {
			passwords++
		}
	}
	if expiring > 0 {
		w.add(AccountExpiry, "%d accounts expire soon or have expired. Action: edit or disable them.", expiring)
	}
	if passwords > 0 {
		w.add(PasswordExpiry, "%d passwords expire soon or have expired. Action: set new ones.", passwords)
	}
	if w.cfg.Store.ReadOnly() {
		w.add(ReadOnly, "The VCM is over its disk quota and issues nothing. Action: export and expire logs, or ask the provider for a larger quota.")
	} else if used := w.cfg.Store.DiskUsed(); w.cfg.Quota > 0 && used > w.cfg.Quota/10*9 {
		w.add(DiskSpace, "%d of %d bytes of the disk quota are used. Action: export and expire logs.", used, w.cfg.Quota)
	}
}

// group collects keys for one notice.
type group struct {
	named []string
	more  int
}

// namedAtMost keeps notices readable.
const namedAtMost = 5

func (g *group) add(k tsm.Attributes, detail string) {
	if len(g.named) == namedAtMost {
		g.more++
		return
	}
	text := fmt.Sprintf("SGC %06d KRN %d", k.SGC, k.KRN)
	if detail != "" {
		text += " (" + detail + ")"
	}
	g.named = append(g.named, text)
}

func (g *group) notice(w *watch, code, format string) {
	if len(g.named) == 0 {
		return
	}
	text := strings.Join(g.named, ", ")
	if g.more > 0 {
		text += fmt.Sprintf(" and %d more", g.more)
	}
	w.add(code, format, text)
}

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }
