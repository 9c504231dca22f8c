package matrix

import (
	"math"
	"slices"
	"strings"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Methods is the table.
func Methods(testMode bool) []Method {
	off := func(fields ...string) map[string]string { return free("the feature is off", fields...) }
	record := func(name, value, code, said string) Case { return text("record "+name, "idRecord", value, code, said) }
	methods := []Method{
		{
			Name: "ping",
			Valid: func(*Target, string) thrift.TStruct {
				return &prismtoken1.TokenApiPingArgs{Echo: "x"}
			},
			Result: func() Result { return &prismtoken1.TokenApiPingResult{} },
			Cases: append(integer("sleepMs", 0, 60000),
				outOfRange("echo", strings.Repeat("ä", 65536)), fine("echo", strings.Repeat("ä", 65535)), fine("echo", "")),
		},
		signIn(),
		{
			Name: "getStatus", Token: true,
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiGetStatusArgs{MessageId: "m-1", AccessToken: token}
			},
			Result: func() Result { return &prismtoken1.TokenApiGetStatusResult{} },
			Cases:  idents("messageId"),
		},
		{
			Name: "parseIdRecord", Token: true,
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiParseIdRecordArgs{MessageId: "m-1", AccessToken: token, IdRecord: "00000260060135803400000207999907012"}
			},
			Result: func() Result { return &prismtoken1.TokenApiParseIdRecordResult{} },
			Cases: append(idents("messageId"),
				record("empty", "", "ESts.IdRecord", "Parameter 'idRecord'"),
				record("length", "123", "ESts.IdRecord", "Parameter 'idRecord'"),
				record("letters", strings.Repeat("x", 35), "ESts.IdRecord", "Parameter 'idRecord'"),
				record("not text", "\xff\x00", "ESts.IdRecord", "got '??'"),
				record("check digit", "00000260060135803500000207999907012", "ESts.DrnOrPan.CheckDigit", "Parameter 'idRecord'"),
				record("IIN", "60072800000000000900000207999907012", "ESts.DrnOrPan", "Parameter 'idRecord'"),
				record("KRN", "00000260060135803400000207999907010", "ESts.IdRecord", "KRN"),
				record("EA", "00000260060135803400000209999907012", "ESts.IdRecord", "EA"),
				record("DOE", "00000260060135803426130207999907012", "ESts.IdRecord", "DOE"),
				record("expired", "00000260060135803426020207999907012", "ESts.IdRecord.Expired", "(YYMM='2602')"),
				record("sentinel", ";000002600601358034==0207999907012", "ESts.IdRecord", "sentinel"),
			),
		},
		{
			Name: "loadTransactionLicense", Token: true, Role: true, Answer: "ESm",
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiLoadTransactionLicenseArgs{MessageId: "m-1", AccessToken: token, LicenseText: "no licence"}
			},
			Result: func() Result { return &prismtoken1.TokenApiLoadTransactionLicenseResult{} },
			Cases: append(idents("messageId"), outOfRange("licenseText", strings.Repeat("x", 1<<18+1)),
				text("no text", "licenseText", "\xff\x00", "ESm", "Security Module error '87': STS API error INVALID_INSTRUCTION")),
		},
		{
			Name: "issueCreditToken", Token: true, Role: true,
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiIssueCreditTokenArgs{MessageId: "m-1", AccessToken: token, MeterConfig: ValidMeter(), TransferAmount: 1}
			},
			Result: func() Result { return &prismtoken1.TokenApiIssueCreditTokenResult{} },
			Cases:  creditCases(),
		},
		{
			Name: "issueMseToken", Token: true, Role: true,
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiIssueMseTokenArgs{MessageId: "m-1", AccessToken: token, MeterConfig: ValidMeter(), TransferAmount: 1}
			},
			Result: func() Result { return &prismtoken1.TokenApiIssueMseTokenResult{} },
			Cases:  engineeringCases(),
		},
		{
			Name: "issueSetControlToken", Token: true, Role: true,
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiIssueSetControlTokenArgs{MessageId: "m-1", AccessToken: token, MeterConfig: ValidMeter()}
			},
			Result: func() Result { return &prismtoken1.TokenApiIssueSetControlTokenResult{} },
			Cases: concat(idents("messageId"), meterCases(), changeCases("meterConfig.newConfig"), timeCases(),
				integer("index", 0, 62), integer("value", 0, 1023),
				with(integer("index", 0, 511), "flag ", func(a thrift.TStruct) { set(a, "isFlag", true) }),
				with(integer("value", 0, 1), "flag ", func(a thrift.TStruct) { set(a, "isFlag", true) })),
		},
		{
			Name: "issueMeterTestToken", Token: true, Role: true,
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiIssueMeterTestTokenArgs{MessageId: "m-1", AccessToken: token}
			},
			Result: func() Result { return &prismtoken1.TokenApiIssueMeterTestTokenResult{} },
			Cases: concat(idents("messageId"), integer("subclass", 0, 15), several("subclass", 2, 3, 4, 5),
				integer("control", 0, 1<<36-1), integer("mfrcode", 0, 0),
				with(integer("control", 0, 1<<28-1), "short ", func(a thrift.TStruct) { set(a, "subclass", 1) }),
				with(integer("mfrcode", 100, 9999), "four digits ", func(a thrift.TStruct) { set(a, "subclass", 6) }),
				with(integer("mfrcode", 0, 99), "two digits ", func(a thrift.TStruct) { set(a, "subclass", 11) })),
		},
		{
			Name: "issueKeyChangeTokens", Token: true, Role: true,
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiIssueKeyChangeTokensArgs{MessageId: "m-1", AccessToken: token, MeterConfig: ValidMeter(), NewConfig_: validAmendment()}
			},
			Result: func() Result { return &prismtoken1.TokenApiIssueKeyChangeTokensResult{} },
			Cases:  concat(idents("messageId"), meterCases(), changeCases("newConfig")),
			Free:   free("the other newConfig counts", "meterConfig.newConfig.toSgc", "meterConfig.newConfig.toKrn", "meterConfig.newConfig.toTi"),
		},
		{
			Name: "verifyToken", Token: true, Role: true,
			Valid: func(t *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiVerifyTokenArgs{MessageId: "m-1", AccessToken: token, MeterConfig: ValidMeter(), TokenDec: t.Token}
			},
			Result: func() Result { return &prismtoken1.TokenApiVerifyTokenResult{} },
			Cases: concat(idents("messageId"), meterCases(), outside("meterConfig.newConfig"),
				several("tokenDec", "", "1234567890123456789", "123456789012345678901", "1234567890123456789x", "99999999999999999999", "\xff\x00")),
		},
		{
			Name: "issueDitkChangeTokens", Token: true, Answer: "EService.Disabled",
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiIssueDitkChangeTokensArgs{MessageId: "m-1", AccessToken: token, MeterConfig: ValidMeter()}
			},
			Result: func() Result { return &prismtoken1.TokenApiIssueDitkChangeTokensResult{} },
			Free: off("messageId", "meterConfig.drn", "meterConfig.ea", "meterConfig.tct", "meterConfig.sgc", "meterConfig.krn", "meterConfig.ti",
				"meterConfig.ken", "meterConfig.doe", "meterConfig.newConfig.toSgc", "meterConfig.newConfig.toKrn", "meterConfig.newConfig.toTi"),
		},
		{
			Name: "fetchTokenResult", Token: true, Answer: "ECacheMiss",
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiFetchTokenResultArgs{MessageId: "m-1", AccessToken: token, ReqMessageId: "never"}
			},
			Result: func() Result { return &prismtoken1.TokenApiFetchTokenResultResult{} },
			Cases: append(append(idents("messageId"), idents("reqMessageId")...),
				text("another user's", "reqMessageId", OthersMessage, "ECacheMiss", "was not found in the cache")),
		},
		{
			Name: "ctsResetTidList", Token: true, Answer: "EService.Disabled",
			Valid: func(_ *Target, token string) thrift.TStruct {
				return &prismtoken1.TokenApiCtsResetTidListArgs{MessageId: "m-1", AccessToken: token, PanPattern: "6007*"}
			},
			Result: func() Result { return &prismtoken1.TokenApiCtsResetTidListResult{} },
			Free:   off("messageId", "panPattern"),
		},
	}
	if testMode {
		for i := range methods { // a module in that mode takes any time
			methods[i].Cases = slices.DeleteFunc(methods[i].Cases, func(c Case) bool { return c.Name == outOfWindow })
		}
		last := &methods[len(methods)-1]
		last.Answer, last.Role, last.Free = "", true, nil
		last.Cases = append(idents("messageId"), several("panPattern", "", "12x", strings.Repeat("1", 19), "\xff\x00")...)
	}
	return methods
}

func signIn() Method {
	return Method{
		Name: "signInWithPassword",
		Valid: func(t *Target, _ string) thrift.TStruct {
			return &prismtoken1.TokenApiSignInWithPasswordArgs{
				MessageId: "m-1", Realm: "local", Username: UserName, Password: t.Password, SessionOpts: prismtoken1.NewSessionOptions(),
			}
		},
		Result: func() Result { return &prismtoken1.TokenApiSignInWithPasswordResult{} },
		Cases: concat(idents("messageId"), idents("username"), []Case{
			text("version 2", "sessionOpts.version", "2.0", "ESignin.Version", "(API version=1.1) does not support your client's API version='2.0'"),
			text("later minor", "sessionOpts.version", "1.2", "ESignin.Version", "'1.2'"),
			text("leading zero", "sessionOpts.version", "01.1", "ESignin.Version", "'01.1'"),
			text("no version", "sessionOpts.version", "\xff\x00", "ESignin.Version", "'??'"),
			fine("sessionOpts.version", "1.0"),
			fine("sessionOpts.culture", "de-AT"),
			outOfRange("sessionOpts.culture", "english"), outOfRange("sessionOpts.culture", ""), outOfRange("sessionOpts.culture", "\xff\x00"),
			text("realm", "realm", "ldap", "ESignin.Realm", "unknown realm='ldap'"),
			text("no realm", "realm", "\xff\x00", "ESignin.Realm", "unknown realm='??'"),
			text("user", "username", "nobody", "ESignin.Subject", "unknown username='nobody' in realm='local'"),
			text("no password set", "username", "admin", "ESignin.Authentication", "username='admin'"),
			text("role", "username", OperatorName, "ESignin.Permission", "username='operator' does not have permission 'ptoken.api'"),
			outOfRange("password", strings.Repeat("x", 56)), outOfRange("password", "pässword"), outOfRange("password", "\x00"),
			text("password", "password", "Passw0re", "ESignin.Authentication", "realm='local' username='any'"),
			text("no password", "password", "", "ESignin.Authentication", ""),
			{"version before realm", "realm", both("sessionOpts.version", "9.9", "realm", "x"), "ESignin.Version", ""},
			{"realm before user", "realm", both("realm", "x", "username", "nobody"), "ESignin.Realm", ""},
			{"password before role", "password", both("username", OperatorName, "password", "x"), "ESignin.Authentication", ""},
		}),
	}
}

func creditCases() []Case {
	currency := func(a thrift.TStruct) { set(a, "subclass", 4) }
	sm := func(name, field string, change func(thrift.TStruct), text string) Case {
		return Case{name, field, change, "ESm", "Security Module error " + text}
	}
	const key = "meterConfig.sgc"
	return concat(issueCases(), several("subclass", 8, 9, 10, 11, 12, 13, 14, 15), compressed(),
		with(several("transferAmount", math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 1.7e30, -1.7e30), "currency ", currency),
		with([]Case{fine("transferAmount", -12.5), fine("transferAmount", 1.6383e30), fine("transferAmount", -1.6383e30)}, "currency ", currency),
		[]Case{
			sm("default key", key, both(key, 991993, "subclass", 0), "'05': STS API error KEY_TYPE_ERROR"),
			sm("EA11 from a short key", key, both(key, 991993, "meterConfig.ea", 11), "'05': STS API error KEY_TYPE_ERROR"),
			sm("subclass bitmap", "subclass", both(key, 222222, "subclass", 1), "'48': STS API error SUBCLASS_NOT_ALLOWED"),
			sm("unit limit", "transferAmount", both(key, 222222, "transferAmount", 1001), "'31': STS API error INSUFFICIENT_CREDIT_BALANCE"),
		})
}

func engineeringCases() []Case {
	plain := []any{65536, -1, 1.5, math.NaN(), math.Inf(1), math.SmallestNonzeroFloat64}
	out := concat(issueCases(), several("subclass", 3, 4, 8, 9), compressed())
	for name, c := range map[string]struct {
		subclass int
		bad      []any
	}{"register ": {1, plain}, "tariff ": {2, plain}, "factor ": {7, plain}, "control ": {10, plain}, "tamper ": {5, []any{1, -1, math.NaN()}},
		"limit ": {6, []any{-1, 18201625, math.NaN()}}} {
		out = append(out, with(several("transferAmount", c.bad...), name, func(a thrift.TStruct) { set(a, "subclass", c.subclass) })...)
	}
	for subclass := 11; subclass <= 15; subclass++ {
		out = append(out, Case{"proprietary", "subclass", func(a thrift.TStruct) { set(a, "subclass", subclass) }, "EService.Disabled", "ptoken.allowIssueProprietaryTokens"})
	}
	return out
}
