package prismtoken

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// maxName bounds a method's name in a message that is echoed into an answer.
const maxName = 64

// method reads the arguments of a call and makes it. The error is about the
// arguments only; everything else is in the result.
type method func(ctx context.Context, h *handler, in thrift.TProtocol) (thrift.TStruct, error)

// bind makes a method of typed functions.
func bind[A any, P interface {
	*A
	thrift.TStruct
}](newArgs func() P, call func(ctx context.Context, h *handler, a P) thrift.TStruct) method {
	return func(ctx context.Context, h *handler, in thrift.TProtocol) (thrift.TStruct, error) {
		args := newArgs()
		if err := args.Read(ctx, in); err != nil {
			return nil, err
		}
		return call(ctx, h, args), nil
	}
}

// answer makes the answer to the message in x. It always returns a frame.
func (s *Server) answer(ctx context.Context, x *codec) (out []byte) {
	name, kind, seq, err := x.inProto.ReadMessageBegin(ctx)
	if err != nil {
		return x.exception("", 0, protocolError, "not a message of the strict binary protocol: "+err.Error())
	}
	if len(name) > maxName {
		name = name[:maxName]
	}
	m, ok := methods[name]
	switch {
	case !ok:
		return x.exception(name, seq, unknownMethod, fmt.Sprintf("unknown method %q", name))
	case kind != thrift.CALL:
		return x.exception(name, seq, invalidMessageType, "expected a call")
	}
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a call panicked", "method", name, "panic", p, "stack", string(debug.Stack()))
			out = x.exception(name, seq, internalError, "internal error in "+name)
		}
	}()
	result, err := m(ctx, s.handler, x.inProto)
	if err != nil {
		return x.exception(name, seq, protocolError, "bad arguments: "+err.Error())
	}
	out, err = x.reply(ctx, name, seq, result)
	if err != nil {
		s.log.Error("an answer could not be written", "method", name, "error", err)
		return x.exception(name, seq, internalError, "internal error in "+name)
	}
	return out
}

// methods is the interface, by name.
var methods = map[string]method{
	"ping": bind(prismtoken1.NewTokenApiPingArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiPingArgs) thrift.TStruct {
		v, err := h.Ping(ctx, a.SleepMs, a.Echo)
		return &prismtoken1.TokenApiPingResult{Success: onSuccess(&v, err), Ex1: h.exception(err)}
	}),
	"signInWithPassword": bind(prismtoken1.NewTokenApiSignInWithPasswordArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiSignInWithPasswordArgs) thrift.TStruct {
		v, err := h.SignInWithPassword(ctx, a.MessageId, a.Realm, a.Username, a.Password, a.SessionOpts)
		return &prismtoken1.TokenApiSignInWithPasswordResult{Success: onSuccess(v, err), Ex1: h.exception(err)}
	}),
	"getStatus": bind(prismtoken1.NewTokenApiGetStatusArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiGetStatusArgs) thrift.TStruct {
		v, err := h.GetStatus(ctx, a.MessageId, a.AccessToken)
		return &prismtoken1.TokenApiGetStatusResult{Success: v, Ex1: h.exception(err)}
	}),
	"parseIdRecord": bind(prismtoken1.NewTokenApiParseIdRecordArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiParseIdRecordArgs) thrift.TStruct {
		v, err := h.ParseIdRecord(ctx, a.MessageId, a.AccessToken, a.IdRecord)
		return &prismtoken1.TokenApiParseIdRecordResult{Success: onSuccess(v, err), Ex1: h.exception(err)}
	}),
	"loadTransactionLicense": bind(prismtoken1.NewTokenApiLoadTransactionLicenseArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiLoadTransactionLicenseArgs) thrift.TStruct {
		v, err := h.LoadTransactionLicense(ctx, a.MessageId, a.AccessToken, a.LicenseText)
		return &prismtoken1.TokenApiLoadTransactionLicenseResult{Success: onSuccess(&v, err), Ex1: h.exception(err)}
	}),
	"issueCreditToken": bind(prismtoken1.NewTokenApiIssueCreditTokenArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiIssueCreditTokenArgs) thrift.TStruct {
		v, err := h.IssueCreditToken(ctx, a.MessageId, a.AccessToken, a.MeterConfig, a.Subclass, a.TransferAmount, a.TokenTime, a.Flags)
		return &prismtoken1.TokenApiIssueCreditTokenResult{Success: v, Ex1: h.exception(err)}
	}),
	"issueMeterTestToken": bind(prismtoken1.NewTokenApiIssueMeterTestTokenArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiIssueMeterTestTokenArgs) thrift.TStruct {
		v, err := h.IssueMeterTestToken(ctx, a.MessageId, a.AccessToken, a.Subclass, a.Control, a.Mfrcode)
		return &prismtoken1.TokenApiIssueMeterTestTokenResult{Success: onSuccess(v, err), Ex1: h.exception(err)}
	}),
	"issueMseToken": bind(prismtoken1.NewTokenApiIssueMseTokenArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiIssueMseTokenArgs) thrift.TStruct {
		v, err := h.IssueMseToken(ctx, a.MessageId, a.AccessToken, a.MeterConfig, a.Subclass, a.TransferAmount, a.TokenTime, a.Flags)
		return &prismtoken1.TokenApiIssueMseTokenResult{Success: v, Ex1: h.exception(err)}
	}),
	"issueSetControlToken": bind(prismtoken1.NewTokenApiIssueSetControlTokenArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiIssueSetControlTokenArgs) thrift.TStruct {
		v, err := h.IssueSetControlToken(ctx, a.MessageId, a.AccessToken, a.MeterConfig, a.IsFlag, a.Index, a.Value, a.TokenTime, a.Flags)
		return &prismtoken1.TokenApiIssueSetControlTokenResult{Success: v, Ex1: h.exception(err)}
	}),
	"issueKeyChangeTokens": bind(prismtoken1.NewTokenApiIssueKeyChangeTokensArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiIssueKeyChangeTokensArgs) thrift.TStruct {
		v, err := h.IssueKeyChangeTokens(ctx, a.MessageId, a.AccessToken, a.MeterConfig, a.NewConfig_)
		return &prismtoken1.TokenApiIssueKeyChangeTokensResult{Success: v, Ex1: h.exception(err)}
	}),
	"verifyToken": bind(prismtoken1.NewTokenApiVerifyTokenArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiVerifyTokenArgs) thrift.TStruct {
		v, err := h.VerifyToken(ctx, a.MessageId, a.AccessToken, a.MeterConfig, a.TokenDec)
		return &prismtoken1.TokenApiVerifyTokenResult{Success: onSuccess(v, err), Ex1: h.exception(err)}
	}),
	"issueDitkChangeTokens": bind(prismtoken1.NewTokenApiIssueDitkChangeTokensArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiIssueDitkChangeTokensArgs) thrift.TStruct {
		v, err := h.IssueDitkChangeTokens(ctx, a.MessageId, a.AccessToken, a.MeterConfig)
		return &prismtoken1.TokenApiIssueDitkChangeTokensResult{Success: v, Ex1: h.exception(err)}
	}),
	"fetchTokenResult": bind(prismtoken1.NewTokenApiFetchTokenResultArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiFetchTokenResultArgs) thrift.TStruct {
		v, err := h.FetchTokenResult_(ctx, a.MessageId, a.AccessToken, a.ReqMessageId)
		return &prismtoken1.TokenApiFetchTokenResultResult{Success: v, Ex1: h.exception(err)}
	}),
	"ctsResetTidList": bind(prismtoken1.NewTokenApiCtsResetTidListArgs, func(ctx context.Context, h *handler, a *prismtoken1.TokenApiCtsResetTidListArgs) thrift.TStruct {
		v, err := h.CtsResetTidList(ctx, a.MessageId, a.AccessToken, a.PanPattern)
		return &prismtoken1.TokenApiCtsResetTidListResult{Success: v, Ex1: h.exception(err)}
	}),
}

// onSuccess is v unless there is an error: a result has exactly one of both.
func onSuccess[T any](v *T, err error) *T {
	if err != nil {
		return nil
	}
	return v
}
