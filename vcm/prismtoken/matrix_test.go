package prismtoken_test

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// result is what every result struct of the interface has.
type result interface {
	thrift.TStruct
	GetEx1() *prismtoken1.ApiException
}

// badValue is one way to make a valid call invalid.
type badValue struct {
	name string
	set  func(a *arguments)
	code string
	text string // part of the message
}

// arguments are those of every method; each uses some.
type arguments struct {
	message, token   string
	meter            *prismtoken1.MeterConfigIn
	to               *prismtoken1.MeterConfigAmendment
	subclass         int16
	amount           float64
	time, flags      int64
	control          int64
	mfrcode          int16
	isFlag           bool
	index, value     int16
	tokenDec         string
	request, pattern string
	record, licence  string
	sleep            int32
	echo             string
	realm, user      string
	password         string
	opts             *prismtoken1.SessionOptions
}

// method is one method of the interface: how to call it, what it needs, and
// what it refuses.
type method struct {
	call  func(a *arguments) (thrift.TStruct, result)
	token bool   // takes an access token
	role  bool   // and needs a role besides ptoken-api
	valid string // the code of the valid call, "" for success
	bad   []badValue
}

func outOfRange(name, parameter string, set func(a *arguments)) badValue {
	return badValue{name, set, "EParamRange", "Parameter '" + parameter + "' out of range"}
}

func badMessage() badValue {
	return outOfRange("message id", "messageId", func(a *arguments) { a.message = "not an ident" })
}

func badMeters() []badValue {
	return []badValue{
		{"drn digits", func(a *arguments) { a.meter.Drn = "1234567890x" }, "ESts.DrnOrPan", "Parameter 'drn'"},
		{"drn length", func(a *arguments) { a.meter.Drn = "123" }, "ESts.DrnOrPan", "Parameter 'drn'"},
		{"pan iin", func(a *arguments) { a.meter.Drn = "600728000000000009" }, "ESts.DrnOrPan", "Parameter 'drn'"},
		{"drn check digit", func(a *arguments) { a.meter.Drn = "00000000001" }, "ESts.DrnOrPan.CheckDigit", "got '00000000001'"},
		outOfRange("ea", "ea", func(a *arguments) { a.meter.Ea = 9 }),
		outOfRange("tct below", "tct", func(a *arguments) { a.meter.Tct = -1 }),
		outOfRange("tct above", "tct", func(a *arguments) { a.meter.Tct = 100 }),
		outOfRange("sgc below", "sgc", func(a *arguments) { a.meter.Sgc = -1 }),
		outOfRange("sgc above", "sgc", func(a *arguments) { a.meter.Sgc = 1000000 }),
		outOfRange("krn below", "krn", func(a *arguments) { a.meter.Krn = 0 }),
		outOfRange("krn above", "krn", func(a *arguments) { a.meter.Krn = 10 }),
		outOfRange("ti below", "ti", func(a *arguments) { a.meter.Ti = -1 }),
		outOfRange("ti above", "ti", func(a *arguments) { a.meter.Ti = 100 }),
		outOfRange("ken below", "ken", func(a *arguments) { a.meter.Ken = -1 }),
		outOfRange("ken above", "ken", func(a *arguments) { a.meter.Ken = 256 }),
		outOfRange("doe", "doe", func(a *arguments) { a.meter.Doe = "2613" }),
		{"doe past", func(a *arguments) { a.meter.Doe = "2603" }, "ESts.IdRecord.Expired", "(YYMM='2603')"},
		{"key unknown", func(a *arguments) { a.meter.Sgc = 111111 }, "EKeystore.NotFound", "SGC=111111,KRN=1 (reason: not in the key store)"},
	}
}

func badNewConfig() []badValue {
	with := func(sgc int32, krn, ti int16) func(a *arguments) {
		return func(a *arguments) {
			a.meter.NewConfig_ = &prismtoken1.MeterConfigAmendment{ToSgc: sgc, ToKrn: krn, ToTi: ti}
		}
	}
	return []badValue{
		outOfRange("new sgc", "toSgc", with(1000000, 1, 1)),
		outOfRange("new krn", "toKrn", with(654321, 0, 1)),
		outOfRange("new ti", "toTi", with(654321, 1, 100)),
		{"new key unknown", with(111111, 1, 1), "EKeystore.NotFound", "SGC=111111,KRN=1"},
	}
}

func badIssue() []badValue {
	return append(append(badMeters(), badNewConfig()...),
		outOfRange("subclass below", "subclass", func(a *arguments) { a.subclass = -1 }),
		outOfRange("subclass above", "subclass", func(a *arguments) { a.subclass = 16 }),
		outOfRange("amount below", "transferAmount", func(a *arguments) { a.amount = -1 }),
		outOfRange("amount above", "transferAmount", func(a *arguments) { a.amount = 18201625 }),
		outOfRange("amount NaN", "transferAmount", func(a *arguments) { a.amount = math.NaN() }),
		outOfRange("amount infinite", "transferAmount", func(a *arguments) { a.amount = math.Inf(1) }),
		outOfRange("external clock", "tokenTime", func(a *arguments) { a.flags, a.time = 1, 0 }),
		outOfRange("adjusted minute", "tokenTime", func(a *arguments) { a.flags, a.time = 2, -1 }),
		outOfRange("flags 3", "flags", func(a *arguments) { a.flags = 3 }),
		outOfRange("flags 6", "flags", func(a *arguments) { a.flags = 6 }),
		outOfRange("flags 7", "flags", func(a *arguments) { a.flags = 7 }),
		outOfRange("flags 8", "flags", func(a *arguments) { a.flags = 8 }),
		badValue{"before the base date", func(a *arguments) { a.flags, a.time = 2, 100 }, "ESts.VkBeforeBdt", "before its Base Date"},
		badValue{"beyond KEN", func(a *arguments) { a.flags, a.time = 2, 11044800+1<<24 }, "ESts.VkExpired", "exceeds KeyExpiryNumber"},
		badValue{"window", func(a *arguments) { a.flags, a.time = 2, 11044800+5_000_000 }, "ESm", "Security Module error '44': STS API error TID_OUT_OF_WINDOW"},
		badMessage(),
	)
}

func matrix() map[string]method {
	return map[string]method{
		"ping": {
			call: func(a *arguments) (thrift.TStruct, result) {
				return &prismtoken1.TokenApiPingArgs{SleepMs: a.sleep, Echo: a.echo}, &prismtoken1.TokenApiPingResult{}
			},
			bad: []badValue{
				outOfRange("sleep below", "sleepMs", func(a *arguments) { a.sleep = -1 }),
				outOfRange("sleep above", "sleepMs", func(a *arguments) { a.sleep = 60001 }),
				outOfRange("echo", "echo", func(a *arguments) { a.echo = strings.Repeat("ä", 65536) }),
			},
		},
		"signInWithPassword": {
			call: func(a *arguments) (thrift.TStruct, result) {
				return &prismtoken1.TokenApiSignInWithPasswordArgs{
					MessageId: a.message, Realm: a.realm, Username: a.user, Password: a.password, SessionOpts: a.opts,
				}, &prismtoken1.TokenApiSignInWithPasswordResult{}
			},
			bad: []badValue{
				badMessage(),
				{"version", func(a *arguments) { a.opts.Version = "2.0" }, "ESignin.Version", "(API version=1.1) does not support your client's API version='2.0'"},
				{"later minor", func(a *arguments) { a.opts.Version = "1.2" }, "ESignin.Version", "'1.2'"},
				{"leading zero", func(a *arguments) { a.opts.Version = "01.1" }, "ESignin.Version", "'01.1'"},
				outOfRange("culture", "culture", func(a *arguments) { a.opts.Culture = "english" }),
				{"realm", func(a *arguments) { a.realm = "ldap" }, "ESignin.Realm", "unknown realm='ldap'"},
				{"user", func(a *arguments) { a.user = "nobody" }, "ESignin.Subject", "unknown username='nobody' in realm='local'"},
				outOfRange("user form", "username", func(a *arguments) { a.user = "no body" }),
				outOfRange("password form", "password", func(a *arguments) { a.password = strings.Repeat("x", 56) }),
				{"password", func(a *arguments) { a.password = "Passw0re" }, "ESignin.Authentication", "realm='local' username='any'"},
				{"no password set", func(a *arguments) { a.user = "admin" }, "ESignin.Authentication", "username='admin'"},
				{"role", func(a *arguments) { a.user = "operator" }, "ESignin.Permission", "username='operator' does not have permission 'ptoken.api'"},
				{"version before realm", func(a *arguments) { a.opts.Version, a.realm = "9.9", "x" }, "ESignin.Version", ""},
				{"realm before user", func(a *arguments) { a.realm, a.user = "x", "nobody" }, "ESignin.Realm", ""},
				{"password before role", func(a *arguments) { a.user, a.password = "operator", "x" }, "ESignin.Authentication", ""},
			},
		},
		"getStatus": {token: true, call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiGetStatusArgs{MessageId: a.message, AccessToken: a.token}, &prismtoken1.TokenApiGetStatusResult{}
		}, bad: []badValue{badMessage()}},
		"parseIdRecord": {
			token: true,
			call: func(a *arguments) (thrift.TStruct, result) {
				return &prismtoken1.TokenApiParseIdRecordArgs{MessageId: a.message, AccessToken: a.token, IdRecord: a.record}, &prismtoken1.TokenApiParseIdRecordResult{}
			},
			bad: []badValue{
				badMessage(),
				{"length", func(a *arguments) { a.record = "123" }, "ESts.IdRecord", "Parameter 'idRecord'"},
				{"letters", func(a *arguments) { a.record = strings.Repeat("x", 35) }, "ESts.", "Parameter 'idRecord'"},
				{"check digit", func(a *arguments) { a.record = "00000260060135803500000207999907012" }, "ESts.DrnOrPan.CheckDigit", "Parameter 'idRecord'"},
				{"krn", func(a *arguments) { a.record = "00000260060135803400000207999907010" }, "ESts.IdRecord", "KRN"},
				{"ea", func(a *arguments) { a.record = "00000260060135803400000209999907012" }, "ESts.IdRecord", "EA"},
				{"expired", func(a *arguments) { a.record = "00000260060135803426020207999907012" }, "ESts.IdRecord.Expired", "(YYMM='2602')"},
				{"sentinel", func(a *arguments) { a.record = ";000002600601358034==0207999907012" }, "ESts.IdRecord", "sentinel"},
			},
		},
		"loadTransactionLicense": {
			token: true, role: true, valid: "ESm",
			call: func(a *arguments) (thrift.TStruct, result) {
				return &prismtoken1.TokenApiLoadTransactionLicenseArgs{MessageId: a.message, AccessToken: a.token, LicenseText: a.licence}, &prismtoken1.TokenApiLoadTransactionLicenseResult{}
			},
			bad: []badValue{badMessage(), outOfRange("length", "licenseText", func(a *arguments) { a.licence = strings.Repeat("x", 1<<18+1) })},
		},
		"issueCreditToken": {token: true, role: true, call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiIssueCreditTokenArgs{
				MessageId: a.message, AccessToken: a.token, MeterConfig: a.meter, Subclass: a.subclass, TransferAmount: a.amount, TokenTime: a.time, Flags: a.flags,
			}, &prismtoken1.TokenApiIssueCreditTokenResult{}
		}, bad: append(badIssue(),
			outOfRange("reserved subclass", "subclass", func(a *arguments) { a.subclass = 8 }),
			outOfRange("currency", "transferAmount", func(a *arguments) { a.subclass, a.amount = 4, 1.7e30 }),
			badValue{"default key", func(a *arguments) { a.meter.Sgc = 991993 }, "ESm", "Security Module error '05': STS API error KEY_TYPE_ERROR"},
			badValue{"subclass bitmap", func(a *arguments) { a.meter.Sgc, a.subclass = 222222, 1 }, "ESm", "'48': STS API error SUBCLASS_NOT_ALLOWED"},
			badValue{"unit limit", func(a *arguments) { a.meter.Sgc, a.amount = 222222, 1001 }, "ESm", "'31': STS API error INSUFFICIENT_CREDIT_BALANCE"},
			badValue{"EA11 from a short key", func(a *arguments) { a.meter.Sgc, a.meter.Ea = 991993, 11 }, "ESm", "'05'"},
		)},
		"issueMseToken": {token: true, role: true, call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiIssueMseTokenArgs{
				MessageId: a.message, AccessToken: a.token, MeterConfig: a.meter, Subclass: a.subclass, TransferAmount: a.amount, TokenTime: a.time, Flags: a.flags,
			}, &prismtoken1.TokenApiIssueMseTokenResult{}
		}, bad: append(badIssue(),
			outOfRange("key change 3", "subclass", func(a *arguments) { a.subclass = 3 }),
			outOfRange("key change 9", "subclass", func(a *arguments) { a.subclass = 9 }),
			outOfRange("register", "transferAmount", func(a *arguments) { a.subclass, a.amount = 1, 65536 }),
			outOfRange("fraction", "transferAmount", func(a *arguments) { a.subclass, a.amount = 10, 1.5 }),
			outOfRange("tamper", "transferAmount", func(a *arguments) { a.subclass, a.amount = 5, 1 }),
			badValue{"proprietary", func(a *arguments) { a.subclass = 11 }, "EService.Disabled", "ptoken.allowIssueProprietaryTokens"},
		)},
		"issueSetControlToken": {token: true, role: true, call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiIssueSetControlTokenArgs{
				MessageId: a.message, AccessToken: a.token, MeterConfig: a.meter, IsFlag: a.isFlag, Index: a.index, Value: a.value, TokenTime: a.time, Flags: a.flags,
			}, &prismtoken1.TokenApiIssueSetControlTokenResult{}
		}, bad: append(badMeters(), badMessage(),
			outOfRange("flag index", "index", func(a *arguments) { a.isFlag, a.index = true, 512 }),
			outOfRange("flag value", "value", func(a *arguments) { a.isFlag, a.value = true, 2 }),
			outOfRange("register index", "index", func(a *arguments) { a.index = 63 }),
			outOfRange("register value", "value", func(a *arguments) { a.value = 1024 }),
			outOfRange("flags", "flags", func(a *arguments) { a.flags = 3 }),
		)},
		"issueMeterTestToken": {token: true, role: true, call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiIssueMeterTestTokenArgs{
				MessageId: a.message, AccessToken: a.token, Subclass: a.subclass, Control: a.control, Mfrcode: a.mfrcode,
			}, &prismtoken1.TokenApiIssueMeterTestTokenResult{}
		}, bad: []badValue{
			badMessage(),
			outOfRange("reserved", "subclass", func(a *arguments) { a.subclass = 2 }),
			outOfRange("subclass above", "subclass", func(a *arguments) { a.subclass = 16 }),
			outOfRange("control below", "control", func(a *arguments) { a.control = -1 }),
			outOfRange("control 36", "control", func(a *arguments) { a.control = 1 << 36 }),
			outOfRange("control 28", "control", func(a *arguments) { a.subclass, a.control = 1, 1<<28 }),
			outOfRange("no code", "mfrcode", func(a *arguments) { a.mfrcode = 1 }),
			outOfRange("code of four below", "mfrcode", func(a *arguments) { a.subclass, a.mfrcode = 6, 99 }),
			outOfRange("code of four above", "mfrcode", func(a *arguments) { a.subclass, a.mfrcode = 6, 10000 }),
			outOfRange("code of two", "mfrcode", func(a *arguments) { a.subclass, a.mfrcode = 11, 100 }),
		}},
		"issueKeyChangeTokens": {token: true, role: true, call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiIssueKeyChangeTokensArgs{MessageId: a.message, AccessToken: a.token, MeterConfig: a.meter, NewConfig_: a.to}, &prismtoken1.TokenApiIssueKeyChangeTokensResult{}
		}, bad: append(badMeters(), badMessage(),
			outOfRange("sgc", "toSgc", func(a *arguments) { a.to.ToSgc = -1 }),
			outOfRange("krn", "toKrn", func(a *arguments) { a.to.ToKrn = 10 }),
			outOfRange("ti", "toTi", func(a *arguments) { a.to.ToTi = -1 }),
			badValue{"target unknown", func(a *arguments) { a.to.ToSgc = 111111 }, "EKeystore.NotFound", "SGC=111111,KRN=1"},
		)},
		"verifyToken": {token: true, role: true, call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiVerifyTokenArgs{MessageId: a.message, AccessToken: a.token, MeterConfig: a.meter, TokenDec: a.tokenDec}, &prismtoken1.TokenApiVerifyTokenResult{}
		}, bad: append(badMeters(), badMessage(),
			outOfRange("length", "tokenDec", func(a *arguments) { a.tokenDec = "1234567890123456789" }),
			outOfRange("letters", "tokenDec", func(a *arguments) { a.tokenDec = "1234567890123456789x" }),
			outOfRange("too large", "tokenDec", func(a *arguments) { a.tokenDec = "99999999999999999999" }),
		)},
		"issueDitkChangeTokens": {token: true, valid: "EService.Disabled", call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiIssueDitkChangeTokensArgs{MessageId: a.message, AccessToken: a.token, MeterConfig: a.meter}, &prismtoken1.TokenApiIssueDitkChangeTokensResult{}
		}},
		"fetchTokenResult": {token: true, valid: "ECacheMiss", call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiFetchTokenResultArgs{MessageId: a.message, AccessToken: a.token, ReqMessageId: a.request}, &prismtoken1.TokenApiFetchTokenResultResult{}
		}, bad: []badValue{
			badMessage(),
			outOfRange("request", "reqMessageId", func(a *arguments) { a.request = "" }),
			{"another user's", func(a *arguments) { a.request = "of-other" }, "ECacheMiss", "was not found in the cache"},
		}},
		"ctsResetTidList": {token: true, valid: "EService.Disabled", call: func(a *arguments) (thrift.TStruct, result) {
			return &prismtoken1.TokenApiCtsResetTidListArgs{MessageId: a.message, AccessToken: a.token, PanPattern: a.pattern}, &prismtoken1.TokenApiCtsResetTidListResult{}
		}},
	}
}

// matrixRig has keys of every kind the matrix needs.
func matrixRig(t *testing.T) *rig {
	r := newRig(t)
	r.load(group(123456, 1), group(654321, 1),
		group(222222, 1, func(g *kmc.Group) { g.SBM, g.ULM = 0x0001, 1000 }),
		group(991993, 1, func(g *kmc.Group) { g.KTC, g.DKG = "VDDK", 4 }))
	r.user("any", accounts.RoleIssueAny, accounts.RoleTokenOperator)
	r.user("bare")
	r.user("other", accounts.RoleIssueAny)
	must(r.accounts.Create(context.Background(), admin, accounts.NewUser{Username: "operator", Roles: []string{accounts.RoleTokenOperator}, Password: password}))(t)
	return r
}

func validArguments(token string) *arguments {
	return &arguments{
		message: "m-1", token: token, meter: newMeter("00000000000", 7, 123456),
		to:     &prismtoken1.MeterConfigAmendment{ToSgc: 654321, ToKrn: 1, ToTi: 1},
		amount: 1, request: "never", pattern: "*",
		record: "00000260060135803400000207999907012", licence: "no licence", echo: "x",
		realm: "local", user: "any", password: password, opts: prismtoken1.NewSessionOptions(),
	}
}

// TestMatrix makes each method fail in each way it can.
func TestMatrix(t *testing.T) {
	t.Parallel()
	r := matrixRig(t)
	methods := matrix()
	api := reflect.TypeFor[prismtoken1.TokenApi]()
	for i := range api.NumMethod() {
		name := strings.TrimSuffix(api.Method(i).Name, "_")
		if _, ok := methods[strings.ToLower(name[:1])+name[1:]]; !ok {
			t.Errorf("method %s is not in the matrix", name)
		}
	}
	ctx, c := context.Background(), r.client()
	token, bare, other := r.signIn(c, "any"), r.signIn(c, "bare"), r.signIn(c, "other")
	issued, err := c.IssueCreditToken(ctx, "of-other", other, newMeter("00000000000", 7, 123456), 0, 1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Every wrong password here is meant; none may lock the user.
	must(r.accounts.Preferences().Set(ctx, admin, ^accounts.Permission(0), accounts.PrefLockoutThreshold, "100"))(t)
	must(r.accounts.Preferences().Set(ctx, admin, ^accounts.Permission(0), accounts.PrefAddressFailures, "1000"))(t)
	try := func(name, what string, a *arguments, code, text string) {
		t.Helper()
		if a.tokenDec == "" {
			a.tokenDec = issued[0].TokenDec
		}
		args, res := methods[name].call(a)
		if _, err := c.Client_().Call(ctx, name, args, res); err != nil {
			t.Fatalf("%s, %s: %v", name, what, err)
		}
		got := &prismtoken1.ApiException{}
		if ex := res.GetEx1(); ex != nil {
			got = ex
		}
		if !strings.HasPrefix(got.ECode, code) || code == "" && got.ECode != "" || !strings.Contains(got.EMsgEn, text) {
			t.Errorf("%s, %s: %q %q, expected %q %q", name, what, got.ECode, got.EMsgEn, code, text)
		}
	}
	for name, m := range methods {
		try(name, "valid", validArguments(token), m.valid, "")
		if m.token {
			for what, bad := range map[string]string{"missing": "", "malformed": "a\x00b", "unknown": strings.Repeat("A", 43)} {
				try(name, what+" token", validArguments(bad), "EAuthentication.Token", "Authentication failed (bad accessToken: ")
			}
		}
		if m.role {
			try(name, "missing role", validArguments(bare), "EAuthentication.Permission", "Access denied: accessToken does not have permission 'ptoken.")
		}
		for _, b := range m.bad {
			a := validArguments(token)
			b.set(a)
			try(name, b.name, a, b.code, b.text)
		}
	}
	r.clock.Advance(300 * time.Second)
	for name, m := range methods {
		if m.token {
			try(name, "expired token", validArguments(token), "EAuthentication.Token", "bad accessToken: unknown or expired")
		}
	}
}

// TestMissingFields leaves each required field of each method out.
func TestMissingFields(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.client()
	ctx := context.Background()
	for name := range matrix() {
		_, err := c.Client_().Call(ctx, name, emptyArgs{}, emptyArgs{})
		wantException(t, name, err, thrift.PROTOCOL_ERROR)
		if got, err := c.Ping(ctx, 0, "alive"); err != nil || got != "alive" {
			t.Fatalf("%s: the connection did not survive: %v", name, err)
		}
	}
	_, err := c.Client_().Call(ctx, "issueFreeTokens", emptyArgs{}, emptyArgs{})
	wantException(t, "unknown method", err, thrift.UNKNOWN_METHOD)
	if _, err := c.Ping(ctx, 0, ""); err != nil {
		t.Fatal(err)
	}
}

func wantException(t *testing.T, name string, err error, kind int32) {
	t.Helper()
	var e thrift.TApplicationException
	if !errors.As(err, &e) || e.TypeId() != kind {
		t.Errorf("%s: %v, expected an application exception of type %d", name, err, kind)
	}
}

// emptyArgs is an argument struct without fields.
type emptyArgs struct{}

func (emptyArgs) Read(context.Context, thrift.TProtocol) error { return nil }

func (emptyArgs) Write(ctx context.Context, p thrift.TProtocol) error {
	if err := p.WriteStructBegin(ctx, "args"); err != nil {
		return err
	}
	return p.WriteFieldStop(ctx)
}
