package pos

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Key names an error as clients see it.
type Key string

// Keys of errors and of verification results.
const (
	ServiceFailure       Key = "EService"
	Disabled             Key = "EService.Disabled"
	BadToken             Key = "EAuthentication.Token"
	NoPermission         Key = "EAuthentication.Permission"
	ParamRange           Key = "EParamRange"
	BadPAN               Key = "ESts.DrnOrPan"
	PANCheckDigit        Key = "ESts.DrnOrPan.CheckDigit"
	SigninVersion        Key = "ESignin.Version"
	SigninRealm          Key = "ESignin.Realm"
	SigninSubject        Key = "ESignin.Subject"
	SigninAuthentication Key = "ESignin.Authentication"
	SigninPermission     Key = "ESignin.Permission"
	BadIDRecord          Key = "ESts.IdRecord"
	IDRecordExpired      Key = "ESts.IdRecord.Expired"
	SecurityModule       Key = "ESm"
	KeyNotFound          Key = "EKeystore.NotFound"
	CacheMiss            Key = "ECacheMiss"
	PrefRange            Key = "EPrefRange"
	VKExpired            Key = "ESts.VkExpired"
	VKBeforeBDT          Key = "ESts.VkBeforeBdt"
	VerifyOk             Key = "EVerify.Ok"
	VerifyCRC            Key = "EVerify.Crc"
	VerifyDDTKCredit     Key = "EVerify.DdtkCredit"
	VerifyKeyExpired     Key = "EVerify.KeyExpired"
)

type template struct {
	text string
	kind errkind.Kind
}

// templates is the one table from key to text; {n} takes argument n.
var templates = map[Key]template{
	ServiceFailure:       {"Unhandled exception '{0}': {1}", errkind.Internal},
	Disabled:             {"Feature disabled: {0}", errkind.Refused},
	BadToken:             {"Authentication failed (bad accessToken: {0})", errkind.Unauthorised},
	NoPermission:         {"Access denied: accessToken does not have permission '{0}'", errkind.Unauthorised},
	ParamRange:           {"Parameter '{0}' out of range: got '{1}', expected {2}", errkind.Invalid},
	BadPAN:               {"Parameter '{0}' is an invalid meter DRN/PAN (reason: {2}); got '{1}'", errkind.Invalid},
	PANCheckDigit:        {"Parameter '{0}' is a meter DRN/PAN with bad check digit(s); got '{1}'", errkind.Invalid},
	SigninVersion:        {"This service (API version={0}) does not support your client's API version='{1}'", errkind.Invalid},
	SigninRealm:          {"Sign-in failed: unknown realm='{0}'", errkind.Unauthorised},
	SigninSubject:        {"Sign-in failed: unknown username='{1}' in realm='{0}'", errkind.Unauthorised},
	SigninAuthentication: {"Sign-in failed: authentication failed for realm='{0}' username='{1}'", errkind.Unauthorised},
	SigninPermission:     {"Sign-in failed: realm='{0}' username='{1}' does not have permission '{2}'", errkind.Unauthorised},
	BadIDRecord:          {"Parameter '{0}' is an invalid IDRecord/Record2 (reason: {2}); got '{1}'", errkind.Invalid},
	IDRecordExpired:      {"Meter identification has expired (YYMM='{0}')", errkind.Refused},
	SecurityModule:       {"Security Module error '{0}': {1}", errkind.Refused},
	KeyNotFound:          {"Vending Key not available for SGC={0},KRN={1} (reason: {2})", errkind.NotFound},
	CacheMiss:            {"The requested entry was not found in the cache", errkind.NotFound},
	PrefRange:            {"Preference '{0}' out of range: got '{1}', expected {2}", errkind.Invalid},
	VKExpired:            {"Vending Key has expired (TokenID exceeds KeyExpiryNumber)", errkind.Refused},
	VKBeforeBDT:          {"Attempt to use Vending Key before its Base Date", errkind.Refused},
	VerifyOk:             {"(Not an error) Token is valid", errkind.Internal},
	VerifyCRC:            {"Invalid token: CRC error", errkind.Integrity},
	VerifyDDTKCredit:     {"Invalid token: Class 0 token encrypted under a DDTK", errkind.Integrity},
	VerifyKeyExpired:     {"Invalid token: TokenID out of range for Vending Key KeyExpiryNumber", errkind.Refused},
}

// Fault is an error with a client's key. Its text is made from the key's
// template and the arguments, which may hold nothing secret.
type Fault struct {
	Key  Key
	Args []string
	err  error // the cause, may be nil
}

// Faultf makes a fault; each argument is printed as by fmt.Sprint.
func Faultf(key Key, args ...any) *Fault {
	f := &Fault{Key: key}
	for _, a := range args {
		f.Args = append(f.Args, clip(fmt.Sprint(a)))
	}
	return f
}

// clip keeps what a client sent from swelling or garbling the answer.
func clip(s string) string {
	const most = 200
	clean := func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}
	if len(s) > most {
		return strings.Map(clean, s[:most]) + "..."
	}
	return strings.Map(clean, s)
}

// Error renders the template.
func (f *Fault) Error() string {
	pairs := make([]string, 0, 2*len(f.Args))
	for i, a := range f.Args {
		pairs = append(pairs, "{"+strconv.Itoa(i)+"}", a)
	}
	return strings.NewReplacer(pairs...).Replace(templates[f.Key].text)
}

// Unwrap gives the cause, or the key's kind.
func (f *Fault) Unwrap() error {
	if f.err != nil {
		return f.err
	}
	return errkind.Errorf(templates[f.Key].kind, "%s", f.Key)
}

// outOfRange is the fault of an argument outside its range.
func outOfRange(name string, got any, expected string) *Fault {
	return Faultf(ParamRange, name, got, expected)
}

// FaultOf is the one way from any error to what a client is told of it. What is
// nobody's business outside of the VCM has no text of its own: the key says what
// the client can do, and the log has the cause.
func FaultOf(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	var e *tsm.Error
	if errors.As(err, &e) {
		return moduleFault(e.Code, e.Text, err)
	}
	switch kind := errkind.Of(err); kind {
	case errkind.Unavailable: // nothing was issued, and may be later
		return moduleFault(tsm.CodeDeviceFailure, "", err)
	case errkind.Limit: // the speed rating or the disk quota
		return moduleFault(tsm.CodeVendInhibited, "", err)
	default:
		return &Fault{Key: ServiceFailure, Args: []string{kind.String(), "the cause is in the module's log"}, err: err}
	}
}

// moduleFault is the security module's answer with a code; text counts for an
// extended error.
func moduleFault(code tsm.Code, text string, cause error) *Fault {
	if code != tsm.CodeExtended {
		text = "STS API error " + code.Identifier()
	}
	return &Fault{Key: SecurityModule, Args: []string{string(code), clip(text)}, err: cause}
}

// unknownOutcome is the fault of a commit of which nobody can say whether it is
// on the disk until the VCM has been started again.
func unknownOutcome(err error) *Fault {
	return &Fault{Key: ServiceFailure, Args: []string{errkind.Of(err).String(), "whether tokens were issued is unknown; fetch the result"}, err: err}
}
