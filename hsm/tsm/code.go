package tsm

import (
	"errors"
	"fmt"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Code is a two-character response code of the security-module API.
type Code string

// The response codes that the module itself can answer. 22, 34, 35 and 98 are
// from the range that the standard leaves to vendors.
const (
	CodeOK                  Code = "00"
	CodeDeviceFailure       Code = "01"
	CodeFormatError         Code = "02"
	CodeTokenCRC            Code = "03"
	CodeKeyType             Code = "05"
	CodeKeypadCancelled     Code = "10"
	CodeChecksum            Code = "20"
	CodeInvalidHeader       Code = "21"
	CodeRegisterEmpty       Code = "22"
	CodeKMCKeyState         Code = "26"
	CodeKEKSlotNotFound     Code = "27"
	CodeNoRegister          Code = "28"
	CodeKeyChangeNotAllowed Code = "29"
	CodeInsufficientCredit  Code = "31"
	CodeInvalidModuleID     Code = "33"
	CodeLicenceExhausted    Code = "34"
	CodeVendInhibited       Code = "35"
	CodeKeyParam            Code = "40"
	CodeKeyExpired          Code = "41"
	CodeKeyIssueExpired     Code = "42"
	CodeKeyNotYetActive     Code = "43"
	CodeTIDOutOfWindow      Code = "44"
	CodeLogRange            Code = "45"
	CodeSubclassNotAllowed  Code = "48"
	CodeDFFormat            Code = "49"
	CodeKeypadEntry         Code = "52"
	CodeKeypadNotFound      Code = "53"
	CodeTampered            Code = "57"
	CodeAppError            Code = "58"
	CodePTVDFields          Code = "60"
	CodePTVDFieldType       Code = "61"
	CodePTVDEncoding        Code = "62"
	CodePTVDRange           Code = "63"
	CodeInvalidPAN          Code = "76"
	CodeAuthentication      Code = "77"
	CodeCheckDigit          Code = "78"
	CodeDDTKCredit          Code = "80"
	CodeInvalidNumTokens    Code = "85"
	CodeInvalidInstruction  Code = "87"
	CodeAttribute           Code = "94"
	CodePermission          Code = "98"
	CodeExtended            Code = "EE"
)

type codeInfo struct {
	name string
	kind errkind.Kind
}

// codes is the one table from response code to name and kind.
var codes = map[Code]codeInfo{
	CodeOK:                  {"SUCCESSFUL", errkind.Internal},
	CodeDeviceFailure:       {"DEVICE_FAILURE", errkind.Internal},
	CodeFormatError:         {"FORMAT_ERROR", errkind.Invalid},
	CodeTokenCRC:            {"TOKEN_CRC_ERROR", errkind.Integrity},
	CodeKeyType:             {"KEY_TYPE_ERROR", errkind.Refused},
	CodeKeypadCancelled:     {"KEYPAD_ENTRY_CANCELLED", errkind.Refused},
	CodeChecksum:            {"CHECKSUM_ERROR", errkind.Invalid},
	CodeInvalidHeader:       {"INVALID_REQUEST_HEADER", errkind.Invalid},
	CodeRegisterEmpty:       {"CSP_RECORD_EMPTY", errkind.NotFound},
	CodeKMCKeyState:         {"KMC_KEY_STATE_ERROR", errkind.Mode},
	CodeKEKSlotNotFound:     {"KEK_SLOT_NOT_FOUND_ERROR", errkind.NotFound},
	CodeNoRegister:          {"VK_REG_NOT_FOUND_ERROR", errkind.Limit},
	CodeKeyChangeNotAllowed: {"KEY_CHANGE_NOT_ALLOWED", errkind.Refused},
	CodeInsufficientCredit:  {"INSUFFICIENT_CREDIT_BALANCE", errkind.Limit},
	CodeInvalidModuleID:     {"INVALID_SECURITY_MODULE_ID", errkind.Refused},
	CodeLicenceExhausted:    {"TRANSACTION_LICENCE_EXHAUSTED", errkind.Limit},
	CodeVendInhibited:       {"VENDING_INHIBITED", errkind.Limit},
	CodeKeyParam:            {"KEY_PARAM_ERROR", errkind.Invalid},
	CodeKeyExpired:          {"KEY_EXPIRED_ERROR", errkind.Refused},
	CodeKeyIssueExpired:     {"KEY_ISSUE_EXPIRED_ERROR", errkind.Refused},
	CodeKeyNotYetActive:     {"KEY_NOT_YET_ACTIVE", errkind.Refused},
	CodeTIDOutOfWindow:      {"TID_OUT_OF_WINDOW", errkind.Refused},
	CodeLogRange:            {"LOG_RANGE_ERROR", errkind.NotFound},
	CodeSubclassNotAllowed:  {"SUBCLASS_NOT_ALLOWED", errkind.Refused},
	CodeDFFormat:            {"DF_FORMAT_ERROR", errkind.Invalid},
	CodeKeypadEntry:         {"KEYPAD_ENTRY_ERROR", errkind.Invalid},
	CodeKeypadNotFound:      {"KEYPAD_NOT_FOUND", errkind.Unavailable},
	CodeTampered:            {"TAMPERED_STATE", errkind.Mode},
	CodeAppError:            {"APP_ERROR_STATE", errkind.Mode},
	CodePTVDFields:          {"PTVD_NFIELDS_ERROR", errkind.Invalid},
	CodePTVDFieldType:       {"PTVD_FIELDTYPE_ERROR", errkind.Invalid},
	CodePTVDEncoding:        {"PTVD_ENCODING_ERROR", errkind.Invalid},
	CodePTVDRange:           {"PTVD_RANGE_ERROR", errkind.Invalid},
	CodeInvalidPAN:          {"INVALID_PAN_ERROR", errkind.Invalid},
	CodeAuthentication:      {"AUTHENTICATION_ERROR", errkind.Integrity},
	CodeCheckDigit:          {"CHECK_DIGIT_ERROR", errkind.Integrity},
	CodeDDTKCredit:          {"DDTK_CREDIT_ERROR", errkind.Refused},
	CodeInvalidNumTokens:    {"INVALID_NUM_TOKENS", errkind.Invalid},
	CodeInvalidInstruction:  {"INVALID_INSTRUCTION", errkind.Invalid},
	CodeAttribute:           {"ATTRIBUTE_ERROR", errkind.Invalid},
	CodePermission:          {"PERMISSION_ERROR", errkind.Unauthorised},
	CodeExtended:            {"STS_EXTENDED_ERROR", errkind.Refused},
}

// Codes returns every code the module knows, for tests that an edge's table is complete.
func Codes() []Code {
	out := make([]Code, 0, len(codes))
	for c := range codes {
		out = append(out, c)
	}
	return out
}

// Identifier returns the code's name, for example KEY_EXPIRED_ERROR.
func (c Code) Identifier() string {
	if info, ok := codes[c]; ok {
		return info.name
	}
	return "UNKNOWN_ERROR"
}

// Kind returns what kind of failure the code stands for.
func (c Code) Kind() errkind.Kind { return codes[c].kind }

// Error is a refusal by the module. For code EE, Text is the extended error
// text exactly as it travels; otherwise it explains the code to a person.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string {
	if e.Code == CodeExtended {
		return e.Text
	}
	return fmt.Sprintf("STS API error %s (code %s): %s", e.Code.Identifier(), e.Code, e.Text)
}

// Unwrap lets errkind.Of see the code's kind.
func (e *Error) Unwrap() error { return errkind.Errorf(e.Code.Kind(), "%s", e.Text) }

// CodeOf returns the code of the *Error in err's chain, CodeOK for nil and
// CodeDeviceFailure for any other error.
func CodeOf(err error) Code {
	if err == nil {
		return CodeOK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeDeviceFailure
}

func refuse(c Code, format string, args ...any) error {
	return &Error{Code: c, Text: fmt.Sprintf(format, args...)}
}

func extended(format string, args ...any) error {
	return &Error{Code: CodeExtended, Text: fmt.Sprintf(format, args...)}
}
