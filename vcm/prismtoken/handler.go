package prismtoken

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/dashboard"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// handler answers calls: who may, and what the arguments mean. The rules of
// the point of sale are package pos's.
type handler struct {
	accounts  *accounts.Accounts
	pos       *pos.Service
	dashboard *dashboard.Dashboard
	module    Licences
	speed     Speed
	log       *slog.Logger
	tokens    atomic.Int64
}

var _ prismtoken1.TokenApi = (*handler)(nil)

var (
	versionPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$`) })
	culturePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z]{2}(-[a-zA-Z]{2})?$`) })
)

// The version of the interface, which serves every client of the same major
// version and no later minor one.
const apiMajor, apiMinor = 1, 1

type addressKey struct{}

func withAddress(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, addressKey{}, address)
}

// exception turns an error into the wire's; nil stays nil.
func (h *handler) exception(err error) *prismtoken1.ApiException {
	if err == nil {
		return nil
	}
	f := pos.FaultOf(err)
	if f.Key == pos.ServiceFailure {
		h.log.Error("a call failed", "error", errors.Unwrap(f))
	}
	return &prismtoken1.ApiException{ECode: string(f.Key), EMsgEn: f.Error()}
}

func outOfRange(name string, got any, expected string) error {
	return pos.Faultf(pos.ParamRange, name, got, expected)
}

func checkIdent(name, value string) error {
	if isIdent(value) {
		return nil
	}
	return outOfRange(name, value, "1 to 40 letters, digits and _ - . , starting with a letter or digit")
}

func isIdent(s string) bool {
	if len(s) < 1 || len(s) > 40 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '-' || c == '.' || c == ','):
		default:
			return false
		}
	}
	return true
}

// session returns whose token this is.
func (h *handler) session(accessToken string) (accounts.Session, error) {
	ses, err := h.accounts.Authenticate(accessToken)
	if err != nil {
		return ses, pos.Faultf(pos.BadToken, err)
	}
	return ses, nil
}

// permit refuses a session that has none of the alternatives. The text names
// the first, which is the usual one.
func permit(ses accounts.Session, alternatives ...accounts.Permission) error {
	for _, p := range alternatives {
		if ses.Permissions.Has(p) {
			return nil
		}
	}
	return pos.Faultf(pos.NoPermission, alternatives[0])
}

func callerOf(ses accounts.Session) pos.Caller {
	return pos.Caller{Realm: accounts.Realm, Username: ses.Username}
}

// Ping waits and echoes. Anybody may.
func (h *handler) Ping(ctx context.Context, sleepMs int32, echo string) (string, error) {
	if sleepMs < 0 || sleepMs > 60000 {
		return "", outOfRange("sleepMs", sleepMs, "0..60000")
	}
	if n := utf8.RuneCountInString(echo); n > 65535 {
		return "", outOfRange("echo", strconv.Itoa(n)+" characters", "0..65535 characters")
	}
	if sleepMs > 0 {
		timer := time.NewTimer(time.Duration(sleepMs) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return "", errkind.Errorf(errkind.Unavailable, "the service is stopping")
		}
	}
	return echo, nil
}

// SignInWithPassword checks version, realm, user, password and permission, in
// that order.
func (h *handler) SignInWithPassword(ctx context.Context, messageID, realm, username, password string, opts *prismtoken1.SessionOptions) (*prismtoken1.SignInResult_, error) {
	if err := checkIdent("messageId", messageID); err != nil {
		return nil, err
	}
	if !supports(opts.Version) {
		return nil, pos.Faultf(pos.SigninVersion, prismtoken1.ApiVersion, opts.Version)
	}
	if !culturePattern().MatchString(opts.Culture) {
		return nil, outOfRange("culture", opts.Culture, "LL or LL-CC")
	}
	if realm != accounts.Realm {
		return nil, pos.Faultf(pos.SigninRealm, realm)
	}
	if err := checkIdent("username", username); err != nil {
		return nil, err
	}
	if len(password) > 55 || !printable(password) {
		return nil, outOfRange("password", "(not shown)", "0..55 printable ASCII characters")
	}
	address, _ := ctx.Value(addressKey{}).(string)
	token, err := h.accounts.SignIn(ctx, accounts.SignIn{
		Realm: realm, Username: username, Password: password, Address: address, Require: accounts.MayUseAPI,
	})
	var refused *accounts.SignInError
	if errors.As(err, &refused) {
		return nil, signInFault(refused, realm, username)
	}
	if err != nil {
		return nil, err
	}
	return &prismtoken1.SignInResult_{AccessToken: token}, nil
}

func signInFault(e *accounts.SignInError, realm, username string) error {
	switch e.Reason {
	case accounts.UnknownRealm:
		return pos.Faultf(pos.SigninRealm, realm)
	case accounts.UnknownUser:
		return pos.Faultf(pos.SigninSubject, realm, username)
	case accounts.NoPermission:
		return pos.Faultf(pos.SigninPermission, realm, username, accounts.MayUseAPI)
	default:
		return pos.Faultf(pos.SigninAuthentication, realm, username)
	}
}

func supports(version string) bool {
	m := versionPattern().FindStringSubmatch(version)
	if m == nil {
		return false
	}
	major, _ := strconv.Atoi(m[1]) // digits, by the pattern
	minor, _ := strconv.Atoi(m[2])
	return major == apiMajor && minor <= apiMinor
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// GetStatus reports the module's state.
func (h *handler) GetStatus(ctx context.Context, messageID, accessToken string) ([]*prismtoken1.NodeStatus, error) {
	if _, err := h.session(accessToken); err != nil {
		return nil, err
	}
	if err := checkIdent("messageId", messageID); err != nil {
		return nil, err
	}
	st, err := h.dashboard.Status(ctx)
	if err != nil {
		return nil, err
	}
	node := &prismtoken1.NodeStatus{Info: st.Info, Alerts: make([]*prismtoken1.Alert, 0, len(st.Notices))}
	for _, n := range st.Notices {
		node.Alerts = append(node.Alerts, &prismtoken1.Alert{ECode: n.Code, EMsgEn: n.Text})
	}
	return []*prismtoken1.NodeStatus{node}, nil
}

// ParseIdRecord reads a meter card's record.
func (h *handler) ParseIdRecord(_ context.Context, messageID, accessToken, idRecord string) (*prismtoken1.MeterConfigIn, error) {
	if _, err := h.session(accessToken); err != nil {
		return nil, err
	}
	if err := checkIdent("messageId", messageID); err != nil {
		return nil, err
	}
	c, err := h.pos.ParseIDRecord(idRecord)
	if err != nil {
		return nil, err
	}
	out := prismtoken1.NewMeterConfigIn()
	out.Drn, out.Ea, out.Tct, out.Sgc, out.Krn, out.Ti = c.DRN, int16(c.EA), int16(c.TCT), int32(c.SGC), int16(c.KRN), int16(c.TI)
	out.Ken, out.Doe = int16(c.KEN), c.DOE
	return out, nil
}

// maxLicence bounds the text that may surround a licence.
const maxLicence = 256 << 10

// LoadTransactionLicense gives a licence to the security module.
func (h *handler) LoadTransactionLicense(ctx context.Context, messageID, accessToken, text string) (bool, error) {
	ses, err := h.session(accessToken)
	if err != nil {
		return false, err
	}
	if err := permit(ses, accounts.MayOperateTokens); err != nil {
		return false, err
	}
	if err := checkIdent("messageId", messageID); err != nil {
		return false, err
	}
	if len(text) > maxLicence {
		return false, outOfRange("licenseText", strconv.Itoa(len(text))+" bytes", "at most "+strconv.Itoa(maxLicence))
	}
	if _, err := h.module.LoadLicence(tsm.By(ctx, accounts.Realm+":"+ses.Username), text); err != nil {
		return false, err
	}
	return true, nil
}
