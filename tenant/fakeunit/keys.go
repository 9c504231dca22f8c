package fakeunit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func (s *tokenService) slot(kmc string) (*prismadmin.KekSlot, error) {
	slot := s.slots[kmc]
	if slot == nil {
		return nil, errkind.Errorf(errkind.NotFound, "KMC %s is not known", kmc)
	}
	return slot, nil
}

// KmcUploadKey takes the first line as the KMC's name.
func (s *tokenService) KmcUploadKey(_ context.Context, text string) (*prismadmin.KekSlot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, _, ok := strings.Cut(text, "\n")
	if !ok {
		return nil, errkind.Errorf(errkind.Invalid, "this is no KMC public key file")
	}
	s.slots[name] = &prismadmin.KekSlot{Kmc: name, Kpn: 1}
	return s.slots[name], nil
}

func (s *tokenService) KmcList(context.Context) ([]*prismadmin.KekSlot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []*prismadmin.KekSlot{}
	for _, name := range slices.Sorted(maps.Keys(s.slots)) {
		out = append(out, s.slots[name])
	}
	return out, nil
}

func (s *tokenService) KmcGenerateRequest(_ context.Context, kmc string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot, err := s.slot(kmc)
	if err != nil {
		return "", err
	}
	slot.State, slot.RequestOutstanding, slot.Tvp, slot.InModule = "PENDING", true, "20270115080000", true
	return "VKLOADREQ for " + kmc + "\n", nil
}

func (s *tokenService) KmcFetchRequest(_ context.Context, kmc string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot, err := s.slot(kmc)
	if err != nil {
		return "", err
	}
	if !slot.RequestOutstanding {
		return "", errkind.Errorf(errkind.Mode, "no VKLOADREQ of %s is outstanding", kmc)
	}
	return "VKLOADREQ for " + kmc + "\n", nil
}

func (s *tokenService) KmcUploadKlf(_ context.Context, text string) (*prismadmin.KekSlot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, _, _ := strings.Cut(text, "\n")
	slot, err := s.slot(name)
	if err != nil {
		return nil, err
	}
	slot.State, slot.RequestOutstanding, slot.KeysInKlf, slot.RegistersLoaded = "LOADING", false, klfKeys, 0
	for i := range int32(klfKeys) {
		v := &prismadmin.VendingKey{Sgc: 600000 + i, Krn: 1, Kmc: name, Attributes: map[string]string{"KEN": "255", "KCV": fmt.Sprintf("%06X", i)}, VendReason: "not loaded"}
		s.keys[keyName(v.Sgc, v.Krn)] = v
	}
	return slot, nil
}

func keyName(sgc, krn int32) string { return fmt.Sprintf("%06d/%d", sgc, krn) }

func (s *tokenService) KmcLoad(_ context.Context, kmc string, most int32) (*prismadmin.LoadProgress, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot, err := s.slot(kmc)
	if err != nil {
		return nil, err
	}
	if slot.State != "LOADING" {
		return nil, errkind.Errorf(errkind.Mode, "there is nothing to load for %s", kmc)
	}
	p := &prismadmin.LoadProgress{}
	for p.Loaded < most && slot.RegistersLoaded < slot.KeysInKlf {
		if kmc == FullKMC && slot.RegistersLoaded == 40 {
			p.Failure = "Failed to load all VKs: STS API error VK_REG_NOT_FOUND_ERROR (code 28)"
			break
		}
		v := s.keys[keyName(600000+slot.RegistersLoaded, 1)]
		slot.RegistersLoaded++
		p.Loaded++
		v.RegisterNumber, v.VendReason = slot.RegistersLoaded, ""
	}
	p.Remaining = slot.KeysInKlf - slot.RegistersLoaded
	return p, nil
}

func (s *tokenService) KmcEndSession(_ context.Context, kmc string) (*prismadmin.KekSlot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot, err := s.slot(kmc)
	if err == nil {
		slot.State = "ACTIVE"
	}
	return slot, err
}

func (s *tokenService) KmcDeleteSlot(_ context.Context, kmc string) (int32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot, err := s.slot(kmc)
	if err != nil {
		return 0, err
	}
	delete(s.slots, kmc)
	clear(s.keys)
	return slot.RegistersLoaded, nil
}

func (s *tokenService) VkList(_ context.Context, all bool) ([]*prismadmin.VendingKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []*prismadmin.VendingKey{}
	for _, name := range slices.Sorted(maps.Keys(s.keys)) {
		if v := s.keys[name]; all || v.RegisterNumber > 0 {
			out = append(out, v)
		}
	}
	return out, nil
}

func (s *tokenService) key(sgc, krn int32) (*prismadmin.VendingKey, error) {
	v := s.keys[keyName(sgc, krn)]
	if v == nil {
		return nil, errkind.Errorf(errkind.NotFound, "there is no vending key %s", keyName(sgc, krn))
	}
	return v, nil
}

func (s *tokenService) VkShow(_ context.Context, sgc, krn int32) (*prismadmin.VendingKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key(sgc, krn)
}

func (s *tokenService) VkLoad(_ context.Context, sgc, krn int32) (*prismadmin.VendingKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.key(sgc, krn)
	if err == nil {
		v.RegisterNumber, v.VendReason = 999, ""
	}
	return v, err
}

func (s *tokenService) VkDelete(_ context.Context, sgc, krn int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.key(sgc, krn)
	if err == nil {
		v.RegisterNumber, v.VendReason = 0, "not loaded"
	}
	return err
}

func (s *tokenService) LicenseLoad(_ context.Context, text string) (string, error) {
	if !strings.Contains(text, "LICENCE") {
		return "", errkind.Errorf(errkind.Invalid, "the text holds no licence")
	}
	return "1000 transactions more", nil
}

// TokenCredit makes something that looks like a token.
func (s *tokenService) TokenCredit(_ context.Context, r *prismadmin.TokenRequest) ([]*prismadmin.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Amount <= 0 {
		return nil, errkind.Errorf(errkind.Invalid, "amount %v is out of range", r.Amount)
	}
	k := &prismadmin.Token{
		Drn: r.Meter.Drn, Ea: r.Meter.Ea, Sgc: r.Meter.Sgc, Krn: r.Meter.Krn, Ti: r.Meter.Ti, TokenDec: "12345678901234567890",
		Description: "Credit", ScaledAmount: fmt.Sprintf("%.1f", r.Amount/10), ScaledUnitName: "kWh", Tid: 1000, VkKcv: "A1B2C3", IdSm: "00000101",
	}
	s.made[r.MessageId] = []*prismadmin.Token{k}
	return s.made[r.MessageId], nil
}

func (s *tokenService) TokenKeyChange(_ context.Context, id string, m *prismadmin.Meter, to *prismadmin.Amendment) ([]*prismadmin.Token, error) {
	one := &prismadmin.Token{Drn: m.Drn, TokenClass: 2, Subclass: 3, TokenDec: "00000000000000000001", Description: "Key change 1",
		NewConfig_: &prismadmin.Advice{ToSgc: to.ToSgc, ToKrn: to.ToKrn, ToTi: to.ToTi, ToKen: 255, IdRecord: "1"}}
	return []*prismadmin.Token{one, {Drn: m.Drn, TokenClass: 2, Subclass: 4, TokenDec: "00000000000000000002", Description: "Key change 2"}}, nil
}

func (s *tokenService) TokenVerify(_ context.Context, m *prismadmin.Meter, dec string) (*prismadmin.Verification, error) {
	return &prismadmin.Verification{Result_: "EVerify.Ok", Text: "the token is good", Token: &prismadmin.Token{Drn: m.Drn, TokenDec: dec}}, nil
}

func (s *tokenService) TokenMeterTest(_ context.Context, subclass int16, control int64, mfr int16) (*prismadmin.MeterTest, error) {
	return &prismadmin.MeterTest{Subclass: subclass, Control: control, Mfrcode: mfr, TokenDec: "56493153725450313471", Description: "Test all"}, nil
}

func (s *tokenService) TokenFetch(_ context.Context, id string) ([]*prismadmin.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made[id] == nil {
		return nil, errkind.Errorf(errkind.NotFound, "nothing was issued under %s", id)
	}
	return s.made[id], nil
}
