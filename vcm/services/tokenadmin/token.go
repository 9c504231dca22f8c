package tokenadmin

import (
	"context"
	"regexp"
	"sync"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
)

var identPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_\-.,]{0,39}$`) })

// caller is who the results of this session belong to.
func (h *handler) caller() pos.Caller {
	return pos.Caller{Realm: h.actor.Realm, Username: h.actor.Name}
}

func checkMessageID(id string) error {
	if identPattern().MatchString(id) {
		return nil
	}
	return pos.Faultf(pos.ParamRange, "messageId", id, "1 to 40 letters, digits and _ - . , starting with a letter or digit")
}

func (h *handler) request(r *prismadmin.TokenRequest) (pos.Issue, error) {
	return pos.Issue{
		Caller: h.caller(), MessageID: r.MessageId, Meter: meter(r.Meter), Subclass: int(r.Subclass), Amount: r.Amount,
		Time: r.TokenTime, Flags: r.Flags,
	}, checkMessageID(r.MessageId)
}

func meter(m *prismadmin.Meter) pos.MeterConfig {
	out := pos.MeterConfig{
		DRN: m.Drn, EA: int(m.Ea), TCT: int(m.Tct), SGC: int(m.Sgc), KRN: int(m.Krn), TI: int(m.Ti), KEN: int(m.Ken), DOE: m.Doe,
		AllowKRNUpdate: m.AllowKrnUpdate, AllowKENUpdate: m.AllowKenUpdate, Allow3KCT: m.Allow3Kct,
	}
	if a := m.NewConfig_; a != nil {
		out.New = &pos.Amendment{SGC: int(a.ToSgc), KRN: int(a.ToKrn), TI: int(a.ToTi)}
	}
	return out
}

// TokenCredit issues a credit token.
func (h *handler) TokenCredit(ctx context.Context, r *prismadmin.TokenRequest) ([]*prismadmin.Token, error) {
	in, err := h.request(r)
	if err != nil {
		return nil, err
	}
	if err := h.turn(ctx); err != nil {
		return nil, err
	}
	return tokens(h.POS.Credit(ctx, in))
}

// TokenManagement issues an engineering token.
func (h *handler) TokenManagement(ctx context.Context, r *prismadmin.TokenRequest) ([]*prismadmin.Token, error) {
	in, err := h.request(r)
	if err != nil {
		return nil, err
	}
	if err := h.turn(ctx); err != nil {
		return nil, err
	}
	return tokens(h.POS.Management(ctx, in))
}

// TokenKeyChange issues a key-change set.
func (h *handler) TokenKeyChange(ctx context.Context, messageID string, m *prismadmin.Meter, to *prismadmin.Amendment) ([]*prismadmin.Token, error) {
	if err := checkMessageID(messageID); err != nil {
		return nil, err
	}
	if err := h.turn(ctx); err != nil {
		return nil, err
	}
	return tokens(h.POS.KeyChange(ctx, pos.KeyChange{
		Caller: h.caller(), MessageID: messageID, Meter: meter(m),
		New: pos.Amendment{SGC: int(to.ToSgc), KRN: int(to.ToKrn), TI: int(to.ToTi)},
	}))
}

// TokenMeterTest makes a meter test token.
func (h *handler) TokenMeterTest(ctx context.Context, subclass int16, control int64, mfrcode int16) (*prismadmin.MeterTest, error) {
	if err := h.turn(ctx); err != nil {
		return nil, err
	}
	t, err := h.POS.MeterTest(pos.MeterTest{Subclass: int(subclass), Control: control, Manufacturer: int(mfrcode)})
	if err != nil {
		return nil, err
	}
	return wireMeterTest(&t), nil
}

// turn waits for the VCM's turn where its speed is limited.
func (h *handler) turn(ctx context.Context) error {
	if h.Speed == nil {
		return nil
	}
	return h.Speed.Take(ctx)
}

// TokenVerify says what a token is.
func (h *handler) TokenVerify(ctx context.Context, m *prismadmin.Meter, tokenDec string) (*prismadmin.Verification, error) {
	v, err := h.POS.Verify(ctx, pos.Verify{Meter: meter(m), TokenDec: tokenDec})
	if err != nil {
		return nil, err
	}
	out := &prismadmin.Verification{Result_: string(v.Result), Text: pos.Faultf(v.Result).Error()}
	if v.Token != nil {
		out.Token = wireToken(v.Token)
	}
	if v.Test != nil {
		out.MeterTest = wireMeterTest(v.Test)
	}
	return out, nil
}

// TokenFetch returns an earlier result of the same key's holder.
func (h *handler) TokenFetch(ctx context.Context, messageID string) ([]*prismadmin.Token, error) {
	if err := checkMessageID(messageID); err != nil {
		return nil, err
	}
	return tokens(h.POS.Fetch(ctx, h.caller(), messageID))
}

// tokens turns an answer of the point of sale into the wire's.
func tokens(in []pos.Token, err error) ([]*prismadmin.Token, error) {
	if err != nil {
		return nil, err
	}
	out := make([]*prismadmin.Token, len(in))
	for i := range in {
		out[i] = wireToken(&in[i])
	}
	return out, nil
}

func wireToken(t *pos.Token) *prismadmin.Token {
	out := &prismadmin.Token{
		Drn: t.DRN, Pan: t.PAN, Ea: int16(t.EA), Tct: int16(t.TCT), Sgc: int32(t.SGC), Krn: int16(t.KRN), Ti: int16(t.TI),
		TokenClass: int16(t.Class), Subclass: int16(t.Subclass), Tid: int32(t.TID), Amount: t.Amount, IsReservedTid: t.ReservedTID,
		Description: t.Description, StsUnitName: t.STSUnitName, ScaledAmount: t.ScaledAmount, ScaledUnitName: t.ScaledUnitName,
		TokenDec: t.Dec, TokenHex: t.Hex, IdSm: t.IDSM, VkKcv: t.VKKCV,
	}
	if a := t.New; a != nil {
		out.NewConfig_ = &prismadmin.Advice{
			ToSgc: int32(a.SGC), ToKrn: int16(a.KRN), ToTi: int16(a.TI), ToKen: int16(a.KEN),
			IdRecord: a.IDRecord, Record2: a.Record2, Rollover: a.Rollover, ToVkKcv: a.VKKCV,
		}
	}
	return out
}

func wireMeterTest(t *pos.MeterTestToken) *prismadmin.MeterTest {
	return &prismadmin.MeterTest{
		Drn: t.DRN, Pan: t.PAN, Subclass: int16(t.Subclass), Control: t.Control, Mfrcode: int16(t.Manufacturer),
		Description: t.Description, TokenDec: t.Dec, TokenHex: t.Hex,
	}
}
