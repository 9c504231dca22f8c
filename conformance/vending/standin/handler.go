package standin

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// VendingKey is the published compliance key; every supply group has it here.
const VendingKey = "\xAB\xAB\xAB\xAB\xAB\xAB\xAB\xAB\x94\x94\x94\x94\x94\x94\x94\x94\x01\x23\x45\x67"

// Handler answers the calls of TokenApi.
type Handler struct {
	mu sync.Mutex

	signedIn, issued int

	engine  *sts.Engine
	vending *sts.VendingKey
	// token serves every session, until ExpireTokens.
	token   string
	tids    map[string]sts.TID
	results map[string][]*prismtoken1.Token
	// lose counts the issuing calls until an answer is lost; 0 is never.
	lose int
}

func newHandler() *Handler {
	vk, err := sts.NewVendingKey(sts.DKGA04, []byte(VendingKey))
	if err != nil {
		panic(err) // the constant above is 20 bytes
	}
	return &Handler{
		engine: sts.NewEngine(nil, sts.TableDriven), vending: vk,
		tids: map[string]sts.TID{}, results: map[string][]*prismtoken1.Token{},
	}
}

// LoseAnswer makes the connection break in the n-th issuing call from now, after
// its tokens were issued.
func (h *Handler) LoseAnswer(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lose = n
}

// ExpireTokens ends every session.
func (h *Handler) ExpireTokens() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.token = ""
}

// Counts returns how often somebody signed in and how many tokens were issued.
func (h *Handler) Counts() (signedIn, issued int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.signedIn, h.issued
}

// Ping echoes.
func (h *Handler) Ping(ctx context.Context, sleepMs int32, echo string) (string, error) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(sleepMs) * time.Millisecond):
	}
	return echo, nil
}

// SignInWithPassword accepts User and Password.
func (h *Handler) SignInWithPassword(_ context.Context, _, realm, user, password string, opts *prismtoken1.SessionOptions) (*prismtoken1.SignInResult_, error) {
	if opts.Version != "1.0" && opts.Version != "1.1" {
		return nil, apiError("ESignin.Version", "version %s", opts.Version)
	}
	if realm != "local" || user != User || password != Password {
		return nil, apiError("ESignin.Authentication", "Sign-in failed: authentication failed for realm='%s' username='%s'", realm, user)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signedIn++
	if h.token == "" {
		h.token = "token-" + strconv.Itoa(h.signedIn)
	}
	return &prismtoken1.SignInResult_{AccessToken: h.token}, nil
}

func (h *Handler) permit(token string) error {
	if token == "" || token != h.token {
		return apiError("EAuthentication.Token", "Authentication failed (bad accessToken: unknown or expired)")
	}
	return nil
}

// GetStatus returns one node with an alert.
func (h *Handler) GetStatus(_ context.Context, _, token string) ([]*prismtoken1.NodeStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.permit(token); err != nil {
		return nil, err
	}
	return []*prismtoken1.NodeStatus{{
		Info:   map[string]string{"ApiType": "vending", "FirmwareId": "stand-in"},
		Alerts: []*prismtoken1.Alert{{ECode: "EAlert.Test", EMsgEn: "only a stand-in"}},
	}}, nil
}

// ParseIdRecord reads the 35 digits.
func (h *Handler) ParseIdRecord(_ context.Context, _, token, record string) (*prismtoken1.MeterConfigIn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.permit(token); err != nil {
		return nil, err
	}
	r, err := sts.ParseIDRecord(record)
	if err != nil {
		return nil, apiError("ESts.IdRecord", "Parameter 'idRecord' is an invalid IDRecord/Record2 (reason: %s); got '%s'", err, record)
	}
	m := prismtoken1.NewMeterConfigIn()
	m.Drn, m.Ea, m.Tct, m.Sgc, m.Krn, m.Ti, m.Ken = r.PAN.DRN(), int16(r.EA), int16(r.TCT), int32(r.SGC), int16(r.KRN), int16(r.TI), 255
	return m, nil
}

// LoadTransactionLicense is not offered.
func (h *Handler) LoadTransactionLicense(context.Context, string, string, string) (bool, error) {
	return false, apiError("ESm", "Security Module error '87': STS API error INVALID_INSTRUCTION")
}

// IssueCreditToken issues subclasses 0 to 7.
func (h *Handler) IssueCreditToken(_ context.Context, id, token string, m *prismtoken1.MeterConfigIn, sub int16, amount float64, _, _ int64) ([]*prismtoken1.Token, error) {
	return h.issue(id, token, m, 0, sub, amount, func(tid sts.TID) (sts.Message, error) {
		if sub >= 4 && sub <= 7 {
			coded, err := sts.EncodeCurrency(sts.CurrencyUnits(int64(amount * 1e5)))
			return sts.CurrencyCredit{Resource: sts.Resource(sub - 4), TID: tid, Amount: coded}, err
		}
		if sub < 0 || sub > 7 || amount < 0 || amount > sts.MaxUnits {
			return nil, apiError("EParamRange", "Parameter 'subclass' out of range: got '%d', expected 0..7", sub)
		}
		coded, err := sts.EncodeAmount(uint64(math.Ceil(amount)))
		return sts.Credit{Resource: sts.Resource(sub), RND: 5, TID: tid, Amount: coded}, err
	})
}

// IssueMseToken issues class 2 with a raw value.
func (h *Handler) IssueMseToken(_ context.Context, id, token string, m *prismtoken1.MeterConfigIn, sub int16, amount float64, _, _ int64) ([]*prismtoken1.Token, error) {
	return h.issue(id, token, m, 2, sub, amount, func(tid sts.TID) (sts.Message, error) {
		return sts.Management{SubClass: sts.SubClass(sub), RND: 5, TID: tid, Value: uint16(amount)}, nil
	})
}

// IssueSetControlToken issues an extended write.
func (h *Handler) IssueSetControlToken(_ context.Context, id, token string, m *prismtoken1.MeterConfigIn, isFlag bool, index, value int16, _, _ int64) ([]*prismtoken1.Token, error) {
	return h.issue(id, token, m, 2, 10, 0, func(tid sts.TID) (sts.Message, error) {
		write := sts.ExtendedRegister
		if isFlag {
			write = func(flag, on uint16) (sts.Extended, error) { return sts.ExtendedFlag(flag, on != 0) }
		}
		field, err := write(uint16(index), uint16(value))
		return sts.Management{SubClass: 10, RND: 5, TID: tid, Value: uint16(field)}, err
	})
}

// IssueMeterTestToken issues class 1.
func (h *Handler) IssueMeterTestToken(_ context.Context, _, token string, sub int16, control int64, code int16) (*prismtoken1.MeterTestToken, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.permit(token); err != nil {
		return nil, err
	}
	made, err := h.engine.Encode(sts.DecoderKey{}, sts.MeterTest{SubClass: sts.SubClass(sub), Control: uint64(control), Manufacturer: uint16(code)})
	if err != nil {
		return nil, apiError("EParamRange", "%s", err)
	}
	return &prismtoken1.MeterTestToken{
		Drn: "00000000000", Pan: "600727000000000009", TokenClass: 1, Subclass: sub, Control: control, Mfrcode: code,
		Description: "InitMeterTest", TokenDec: made.String(), TokenHex: made.Hex(),
	}, nil
}

// IssueKeyChangeTokens issues a set of 2 or 4.
func (h *Handler) IssueKeyChangeTokens(_ context.Context, id, token string, m *prismtoken1.MeterConfigIn, to *prismtoken1.MeterConfigAmendment) ([]*prismtoken1.Token, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.permit(token); err != nil {
		return nil, err
	}
	old, base, err := h.key(m)
	if err != nil {
		return nil, err
	}
	next := *m
	next.Sgc, next.Krn, next.Ti = to.ToSgc, to.ToKrn, to.ToTi
	key, _, err := h.key(&next)
	if err != nil {
		return nil, err
	}
	count := map[int16]int{7: 2, 11: 4}[m.Ea]
	made, err := h.engine.KeyChangeTokens(old, sts.KeyChange{Key: key, KRN: sts.KRN(to.ToKrn), TI: sts.TI(to.ToTi), KEN: 255, SGC: sts.SGC(to.ToSgc)}, count)
	if err != nil {
		return nil, apiError("EParamRange", "%s", err)
	}
	var list []*prismtoken1.Token
	for i, t := range made {
		one := *base
		one.TokenClass, one.Subclass, one.TokenDec, one.TokenHex = 2, []int16{3, 4, 8, 9}[i], t.String(), t.Hex()
		one.Description, one.ScaledAmount = fmt.Sprintf("section %d", i+1), "0"
		if i == 0 {
			one.NewConfig_ = &prismtoken1.MeterConfigAdvice{ToSgc: to.ToSgc, ToKrn: to.ToKrn, ToTi: to.ToTi, ToKen: 255, ToVkKcv: h.vending.KCV().String()}
		}
		list = append(list, &one)
	}
	return h.keep(id, list)
}

// VerifyToken decodes with the meter's key.
func (h *Handler) VerifyToken(_ context.Context, _, token string, m *prismtoken1.MeterConfigIn, digits string) (*prismtoken1.VerifyResult_, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.permit(token); err != nil {
		return nil, err
	}
	key, base, err := h.key(m)
	if err != nil {
		return nil, err
	}
	parsed, err := sts.ParseToken(digits)
	if err != nil {
		return nil, apiError("EParamRange", "Parameter 'tokenDec' out of range: got '%s', expected 20 digits", digits)
	}
	message, err := h.engine.Decode(key, parsed)
	if err != nil {
		return &prismtoken1.VerifyResult_{ValidationResult_: "EVerify.Crc"}, nil
	}
	base.TokenDec, base.TokenHex, base.Description = digits, parsed.Hex(), fmt.Sprintf("%T", message)
	if credit, ok := message.(sts.Credit); ok {
		base.Tid, base.TransferAmount = int32(credit.TID), float64(credit.Amount.Units())
	}
	return &prismtoken1.VerifyResult_{ValidationResult_: "EVerify.Ok", Token: base}, nil
}

// IssueDitkChangeTokens is not offered.
func (h *Handler) IssueDitkChangeTokens(context.Context, string, string, *prismtoken1.MeterConfigIn) ([]*prismtoken1.Token, error) {
	return nil, apiError("EService.Disabled", "Feature disabled: DITK")
}

// FetchTokenResult_ returns a kept list.
func (h *Handler) FetchTokenResult_(_ context.Context, _, token, id string) ([]*prismtoken1.Token, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.permit(token); err != nil {
		return nil, err
	}
	if list, ok := h.results[id]; ok {
		return list, nil
	}
	return nil, apiError("ECacheMiss", "The requested entry was not found in the cache")
}

// CtsResetTidList is not offered.
func (h *Handler) CtsResetTidList(context.Context, string, string, string) ([]string, error) {
	return nil, apiError("EService.Disabled", "Feature disabled: CTS")
}

// key derives a meter's decoder key and begins its token's record.
func (h *Handler) key(m *prismtoken1.MeterConfigIn) (sts.DecoderKey, *prismtoken1.Token, error) {
	pan, err := sts.ParsePAN(m.Drn)
	if err != nil {
		return sts.DecoderKey{}, nil, apiError("ESts.DrnOrPan", "Parameter 'drn' is an invalid meter DRN/PAN (reason: %s); got '%s'", err, m.Drn)
	}
	key, err := h.vending.DecoderKey(sts.KeyParams{
		PAN: pan, EA: sts.EA(m.Ea), KT: sts.DUTK, SGC: sts.SGC(m.Sgc), KRN: sts.KRN(m.Krn), TI: sts.TI(m.Ti), BaseDate: sts.BaseDate2014,
	})
	if err != nil {
		return sts.DecoderKey{}, nil, apiError("EParamRange", "%s", err)
	}
	return key, &prismtoken1.Token{
		Drn: pan.DRN(), Pan: pan.String(), Ea: m.Ea, Tct: m.Tct, Sgc: m.Sgc, Krn: m.Krn, Ti: m.Ti,
		IdSm: "SMID.1:standin", VkKcv: h.vending.KCV().String(),
	}, nil
}

// issue makes one token with the meter's next TID.
func (h *Handler) issue(id, token string, m *prismtoken1.MeterConfigIn, class, sub int16, amount float64, content func(sts.TID) (sts.Message, error)) ([]*prismtoken1.Token, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.permit(token); err != nil {
		return nil, err
	}
	key, t, err := h.key(m)
	if err != nil {
		return nil, err
	}
	tid, err := sts.BaseDate2014.IssueTID(time.Now())
	if err != nil {
		return nil, apiError("ESts.VkExpired", "%s", err)
	}
	if last, ok := h.tids[t.Pan]; ok && tid <= last {
		tid = last.Next()
	}
	message, err := content(tid)
	if err != nil {
		return nil, err
	}
	made, err := h.engine.Encode(key, message)
	if err != nil {
		return nil, apiError("EParamRange", "%s", err)
	}
	h.tids[t.Pan] = tid
	t.TokenClass, t.Subclass, t.Tid, t.TransferAmount = class, sub, int32(tid), amount
	t.TokenDec, t.TokenHex, t.Description = made.String(), made.Hex(), "stand-in"
	t.StsUnitName, t.ScaledAmount, t.ScaledUnitName = "hWh", fmt.Sprintf("%.1f", math.Ceil(amount)/10), "kWh"
	return h.keep(id, []*prismtoken1.Token{t})
}

// keep stores a result and breaks the connection if its answer is to be lost.
func (h *Handler) keep(id string, list []*prismtoken1.Token) ([]*prismtoken1.Token, error) {
	h.results[id] = list
	h.issued += len(list)
	if h.lose > 0 {
		if h.lose--; h.lose == 0 {
			return nil, thrift.ErrAbandonRequest
		}
	}
	return list, nil
}
