package prismtoken

import (
	"context"

	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// issue is every issuing call whose result is kept: from before it waits for its
// turn until its end, it is one in progress.
func (h *handler) issue(ctx context.Context, messageID, accessToken string, alternatives []accounts.Permission, make func(pos.Caller) ([]pos.Token, error)) ([]*prismtoken1.Token, error) {
	caller, err := h.authorise(messageID, accessToken, alternatives...)
	if err != nil {
		return nil, err
	}
	defer h.pos.Begin(caller, messageID)()
	if err := h.speed.Take(ctx); err != nil {
		return nil, err
	}
	tokens, err := make(caller)
	return h.issued(tokens, err)
}

// authorise is the beginning of every issuing call.
func (h *handler) authorise(messageID, accessToken string, alternatives ...accounts.Permission) (pos.Caller, error) {
	ses, err := h.session(accessToken)
	if err != nil {
		return pos.Caller{}, err
	}
	if err := permit(ses, alternatives...); err != nil {
		return pos.Caller{}, err
	}
	if err := checkIdent("messageId", messageID); err != nil {
		return pos.Caller{}, err
	}
	return callerOf(ses), nil
}

// issued counts tokens and turns them into the wire's.
func (h *handler) issued(tokens []pos.Token, err error) ([]*prismtoken1.Token, error) {
	if err != nil {
		return nil, err
	}
	h.tokens.Add(int64(len(tokens)))
	return wireTokens(tokens), nil
}

// IssueCreditToken issues class 0.
func (h *handler) IssueCreditToken(ctx context.Context, messageID, accessToken string, m *prismtoken1.MeterConfigIn, subclass int16, amount float64, tokenTime, flags int64) ([]*prismtoken1.Token, error) {
	may := []accounts.Permission{accounts.MayIssueCredit, accounts.MayIssueAny}
	return h.issue(ctx, messageID, accessToken, may, func(caller pos.Caller) ([]pos.Token, error) {
		return h.pos.Credit(ctx, pos.Issue{
			Caller: caller, MessageID: messageID, Meter: meterConfig(m), Subclass: int(subclass), Amount: amount, Time: tokenTime, Flags: flags,
		})
	})
}

// IssueMseToken issues class 2 other than key changes.
func (h *handler) IssueMseToken(ctx context.Context, messageID, accessToken string, m *prismtoken1.MeterConfigIn, subclass int16, amount float64, tokenTime, flags int64) ([]*prismtoken1.Token, error) {
	need := accounts.MayIssueEng
	if pos.IsProprietary(int(subclass)) {
		need |= accounts.MayIssueProprietary
		if _, err := h.session(accessToken); err != nil {
			return nil, err
		}
		if err := h.pos.CheckProprietary(); err != nil {
			return nil, err
		}
	}
	may := []accounts.Permission{need, accounts.MayIssueAny}
	return h.issue(ctx, messageID, accessToken, may, func(caller pos.Caller) ([]pos.Token, error) {
		return h.pos.Management(ctx, pos.Issue{
			Caller: caller, MessageID: messageID, Meter: meterConfig(m), Subclass: int(subclass), Amount: amount, Time: tokenTime, Flags: flags,
		})
	})
}

// IssueSetControlToken issues class 2 subclass 10.
func (h *handler) IssueSetControlToken(ctx context.Context, messageID, accessToken string, m *prismtoken1.MeterConfigIn, isFlag bool, index, value int16, tokenTime, flags int64) ([]*prismtoken1.Token, error) {
	may := []accounts.Permission{accounts.MayIssueEng, accounts.MayIssueAny}
	return h.issue(ctx, messageID, accessToken, may, func(caller pos.Caller) ([]pos.Token, error) {
		return h.pos.SetControl(ctx, pos.Control{
			Caller: caller, MessageID: messageID, Meter: meterConfig(m), IsFlag: isFlag, Index: int(index), Value: int(value), Time: tokenTime, Flags: flags,
		})
	})
}

// IssueMeterTestToken issues class 1.
func (h *handler) IssueMeterTestToken(ctx context.Context, messageID, accessToken string, subclass int16, control int64, mfrcode int16) (*prismtoken1.MeterTestToken, error) {
	if _, err := h.authorise(messageID, accessToken, accounts.MayIssueNMSE, accounts.MayIssueEng, accounts.MayIssueAny); err != nil {
		return nil, err
	}
	if err := h.speed.Take(ctx); err != nil {
		return nil, err
	}
	t, err := h.pos.MeterTest(pos.MeterTest{Subclass: int(subclass), Control: control, Manufacturer: int(mfrcode)})
	if err != nil {
		return nil, err
	}
	return wireMeterTest(&t), nil
}

// IssueKeyChangeTokens issues a key-change set.
func (h *handler) IssueKeyChangeTokens(ctx context.Context, messageID, accessToken string, m *prismtoken1.MeterConfigIn, to *prismtoken1.MeterConfigAmendment) ([]*prismtoken1.Token, error) {
	may := []accounts.Permission{accounts.MayIssueKCT, accounts.MayIssueAny}
	return h.issue(ctx, messageID, accessToken, may, func(caller pos.Caller) ([]pos.Token, error) {
		return h.pos.KeyChange(ctx, pos.KeyChange{Caller: caller, MessageID: messageID, Meter: meterConfig(m), New: *amendment(to)})
	})
}

// IssueDitkChangeTokens needs manufacturing firmware, which a VCM's is not.
func (h *handler) IssueDitkChangeTokens(ctx context.Context, messageID, accessToken string, m *prismtoken1.MeterConfigIn) ([]*prismtoken1.Token, error) {
	ses, err := h.session(accessToken)
	if err != nil {
		return nil, err
	}
	return h.issued(h.pos.ManufacturingKeyChange(ctx, callerOf(ses), messageID, meterConfig(m)))
}

// VerifyToken says what a token is. Who may issue any kind may verify.
func (h *handler) VerifyToken(ctx context.Context, messageID, accessToken string, m *prismtoken1.MeterConfigIn, tokenDec string) (*prismtoken1.VerifyResult_, error) {
	ses, err := h.session(accessToken)
	if err != nil {
		return nil, err
	}
	if ses.Permissions&(accounts.MayVerify|accounts.MayIssue) == 0 {
		return nil, pos.Faultf(pos.NoPermission, accounts.MayVerify)
	}
	if err := checkIdent("messageId", messageID); err != nil {
		return nil, err
	}
	v, err := h.pos.Verify(ctx, pos.Verify{Meter: meterConfig(m), TokenDec: tokenDec})
	if err != nil {
		return nil, err
	}
	out := &prismtoken1.VerifyResult_{ValidationResult_: string(v.Result)}
	if v.Token != nil {
		out.Token = wireToken(v.Token)
	}
	if v.Test != nil {
		out.MeterTestToken = wireMeterTest(v.Test)
	}
	return out, nil
}

// FetchTokenResult_ returns an earlier result of the same user.
func (h *handler) FetchTokenResult_(ctx context.Context, messageID, accessToken, reqMessageID string) ([]*prismtoken1.Token, error) {
	ses, err := h.session(accessToken)
	if err != nil {
		return nil, err
	}
	if err := checkIdent("messageId", messageID); err != nil {
		return nil, err
	}
	if err := checkIdent("reqMessageId", reqMessageID); err != nil {
		return nil, err
	}
	tokens, err := h.pos.Fetch(ctx, callerOf(ses), reqMessageID)
	if err != nil {
		return nil, err
	}
	return wireTokens(tokens), nil
}

// CtsResetTidList forgets token identifiers, in test mode only.
func (h *handler) CtsResetTidList(ctx context.Context, messageID, accessToken, panPattern string) ([]string, error) {
	ses, err := h.session(accessToken)
	if err != nil {
		return nil, err
	}
	if err := h.pos.CheckTestMode(); err != nil {
		return nil, err
	}
	if err := permit(ses, accounts.MayAdministerTokens, accounts.MayIssueAny); err != nil {
		return nil, err
	}
	if err := checkIdent("messageId", messageID); err != nil {
		return nil, err
	}
	return h.pos.ResetTIDs(ctx, callerOf(ses), messageID, panPattern)
}
