package accounts

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Names of preferences.
const (
	PrefManufacturingMode  = "ptoken.meterManufacturingMode"
	PrefAllowProprietary   = "ptoken.allowIssueProprietaryTokens"
	PrefAllowUnapprovedKMC = "ptoken.allowUnapprovedKmcPubkeys"
	PrefSessionTimeout     = "ptoken.sessionTimeoutSec"
	PrefInhibitVendWarning = "ptoken.inhibitVendWarningDays"
	PrefTxCounterLow       = "ptoken.txCounterLowThreshold"
	PrefKeyExpiryWarning   = "ptoken.keyExpiryWarningDays"
	PrefKeyRefreshWarning  = "ptoken.keyRefreshWarningDays"
	PrefLimitWarning       = "ptoken.limitWarningPercent"
	PrefRTCDriftHigh       = "ptoken.rtcDriftHighThreshold"
	PrefResultCache        = "ptoken.resultCacheEntries"
	PrefHideUnknownUsers   = "ptoken.hideUnknownUsers"
	PrefMaxConnections     = "ptoken.maxConnections"
	PrefAccountLifetime    = "account.default.lifetime.days"
	PrefPasswordMaxAge     = "account.password.maximum.age.days"
	PrefExpiryWarning      = "account.expiry.warning.days"
	PrefLockoutThreshold   = "account.lockout.threshold"
	PrefLockoutSeconds     = "account.lockout.seconds"
	PrefAddressFailures    = "account.address.failures.per.minute"
	PrefPasswordMinLength  = "password.length.minimum"
	PrefPasswordMinUpper   = "password.uppercase.minimum"
	PrefPasswordMinLower   = "password.lowercase.minimum"
	PrefPasswordMinDigits  = "password.digits.minimum"
	PrefPasswordMinSymbols = "password.symbols.minimum"
	PrefPasswordHistory    = "password.history.count"
	PrefHashMemory         = "password.hash.memoryKiB"
	PrefHashPasses         = "password.hash.passes"
	PrefTLSKey             = "tls.key_data"
	PrefCertificateWarning = "tls.expiry.warning.days"
	PrefConductorSockets   = "conductor.maxSockets"
	PrefConductorTrace     = "conductor.traceLevel"
	PrefConductorErrors    = "conductor.errorFraming"
)

// Types of preferences.
const (
	TypeBool = "bool"
	TypeInt  = "int"
	TypeEnum = "enum"
)

// A Definition says what a preference is and what it may be.
type Definition struct {
	Name         string
	Type         string
	Default      string
	Min, Max     int64    // TypeInt
	Choices      []string // TypeEnum
	Description  string
	ChangeableBy Role
}

// Range is the definition's domain in words.
func (d Definition) Range() string {
	switch d.Type {
	case TypeBool:
		return "True or False"
	case TypeInt:
		return fmt.Sprintf("%d..%d", d.Min, d.Max)
	default:
		return strings.Join(d.Choices, ", ")
	}
}

// canonical returns the one form of value in which it is stored.
func (d Definition) canonical(value string) (string, error) {
	switch d.Type {
	case TypeBool:
		switch strings.ToLower(value) {
		case "true", "1":
			return "True", nil
		case "false", "0":
			return "False", nil
		}
	case TypeInt:
		n, err := strconv.ParseInt(value, 10, 64)
		if err == nil && n >= d.Min && n <= d.Max {
			return strconv.FormatInt(n, 10), nil
		}
	case TypeEnum:
		for _, c := range d.Choices {
			if strings.EqualFold(c, value) {
				return c, nil
			}
		}
	}
	return "", errkind.Errorf(errkind.Invalid, "preference %q out of range: got %q, expected %s", d.Name, value, d.Range())
}

// Definitions lists every preference in alphabetical order of name.
func Definitions() []Definition {
	integer := func(name string, by Role, def, min, max int64, about string) Definition {
		return Definition{Name: name, Type: TypeInt, Default: strconv.FormatInt(def, 10), Min: min, Max: max, Description: about, ChangeableBy: by}
	}
	boolean := func(name string, by Role, def, about string) Definition {
		return Definition{Name: name, Type: TypeBool, Default: def, Description: about, ChangeableBy: by}
	}
	const days, day = 36500, 86400
	return []Definition{
		integer(PrefAddressFailures, RoleAdmin, 60, 5, 100000, "Failed sign-ins from one address in a minute after which that address has to wait."),
		integer(PrefAccountLifetime, RoleAdmin, 365, 1, days, "Days until a new account expires when its creation names no date."),
		integer(PrefExpiryWarning, RoleAdmin, 30, 0, days, "Days before an account or a password expires at which a notice appears."),
		integer(PrefLockoutSeconds, RoleAdmin, 900, 0, 30*day, "Seconds for which an account stays locked; 0 is until an administrator unlocks it."),
		integer(PrefLockoutThreshold, RoleAdmin, 10, 3, 1000, "Failed sign-ins in a row after which an account is locked."),
		integer(PrefPasswordMaxAge, RoleAdmin, 365, 1, days, "Days after which a password has to be changed; afterwards the account cannot sign in."),
		{Name: PrefConductorErrors, Type: TypeEnum, Default: "Framed", Choices: []string{"Framed", "Raw"},
			Description: "How the Conductor sends GL!ER on TCP: like any response, or without the frame, as clients of some devices expect.", ChangeableBy: RoleAdmin},
		integer(PrefConductorSockets, RoleAdmin, 64, 1, 1024, "TCP sockets the Conductor serves at once; more are closed. Those that are open stay."),
		{Name: PrefConductorTrace, Type: TypeEnum, Default: "Default", Choices: []string{"Default", "Verbose", "Debug"},
			Description: "What the Conductor writes to the HSM's log, which the provider reads: Verbose adds each command with its status, Debug its parameters. Keys and tokens are never written.", ChangeableBy: RoleAdmin},
		integer(PrefPasswordMinDigits, RoleAdmin, 1, 0, 20, "Digits a new password needs."),
		integer(PrefHashMemory, RoleAdmin, 4096, 1024, 65536, "Memory in KiB of one argon2id evaluation, for passwords set from now on. Each sign-in pays it."),
		integer(PrefHashPasses, RoleAdmin, 1, 1, 10, "Passes of one argon2id evaluation, for passwords set from now on. Each sign-in pays them."),
		integer(PrefPasswordHistory, RoleAdmin, 4, 0, 24, "Former passwords that may not be used again."),
		integer(PrefPasswordMinLength, RoleAdmin, 7, 7, maxPassword, "Characters a new password needs."),
		integer(PrefPasswordMinLower, RoleAdmin, 1, 0, 20, "Lower-case letters a new password needs."),
		integer(PrefPasswordMinSymbols, RoleAdmin, 0, 0, 20, "Characters other than letters and digits a new password needs."),
		integer(PrefPasswordMinUpper, RoleAdmin, 1, 0, 20, "Upper-case letters a new password needs."),
		integer(PrefAllowProprietary, RoleTokenAdmin, 0, 0, 1, "1 lets engineering tokens of the proprietary subclasses 11 to 15 be issued."),
		boolean(PrefAllowUnapprovedKMC, RoleAdmin, "False", "Lets the public key of a KMC be loaded that no list approves, such as a test KMC's."),
		boolean(PrefHideUnknownUsers, RoleAdmin, "False", "Answers a sign-in of an unknown user like one with a wrong password."),
		integer(PrefInhibitVendWarning, RoleTokenAdmin, 30, 0, days, "Days before the Inhibit Vend Date at which a notice appears."),
		integer(PrefKeyExpiryWarning, RoleTokenAdmin, 90, 0, days, "Days before a vending key's EXP or KEN date at which a notice appears."),
		integer(PrefKeyRefreshWarning, RoleTokenAdmin, 30, 0, days, "Days before a vending key's IUT at which a notice appears."),
		integer(PrefLimitWarning, RoleTokenAdmin, 10, 0, 100, "Percentage of a unit or currency limit below which a notice appears."),
		integer(PrefMaxConnections, RoleTokenAdmin, 12000, 16, 100000, "Connections the token service keeps open; above it the one idle for longest is closed. Takes effect at the next start."),
		boolean(PrefManufacturingMode, RoleTokenAdmin, "False", "Enables use with manufacturing firmware in a meter factory. Takes effect at the next start."),
		integer(PrefResultCache, RoleTokenAdmin, 2048, 100, 20000, "Results a user can fetch again, newest first; older ones are dropped."),
		integer(PrefRTCDriftHigh, RoleTokenAdmin, 60, 1, 10*day, "Seconds between the module's clock and the host's above which a notice appears."),
		integer(PrefSessionTimeout, RoleTokenAdmin, 300, 10, 30*day, "Seconds an access token of the token service lives. Values outside 120..86400 are not recommended."),
		integer(PrefTxCounterLow, RoleTokenAdmin, 1000, 0, math.MaxInt32, "Transactions left below which a notice appears."),
		integer(PrefCertificateWarning, RoleAdmin, 30, 0, days, "Days before the TLS certificate expires at which a notice appears."),
		{Name: PrefTLSKey, Type: TypeEnum, Default: "EC-P256", Choices: []string{"EC-P256", "EC-P384", "RSA-2048", "RSA-3072"}, Description: "Algorithm and size of the next TLS key generated.", ChangeableBy: RoleAdmin},
	}
}
