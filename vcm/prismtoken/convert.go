package prismtoken

import (
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

func meterConfig(m *prismtoken1.MeterConfigIn) pos.MeterConfig {
	return pos.MeterConfig{
		DRN: m.Drn, EA: int(m.Ea), TCT: int(m.Tct), SGC: int(m.Sgc), KRN: int(m.Krn), TI: int(m.Ti), New: amendment(m.NewConfig_),
		AllowKRNUpdate: m.AllowKrnUpdate, KEN: int(m.Ken), DOE: m.Doe, Allow3KCT: m.Allow3Kct, AllowKENUpdate: m.AllowKenUpdate,
	}
}

func amendment(a *prismtoken1.MeterConfigAmendment) *pos.Amendment {
	if a == nil {
		return nil
	}
	return &pos.Amendment{SGC: int(a.ToSgc), KRN: int(a.ToKrn), TI: int(a.ToTi)}
}

func wireTokens(tokens []pos.Token) []*prismtoken1.Token {
	out := make([]*prismtoken1.Token, len(tokens))
	for i := range tokens {
		out[i] = wireToken(&tokens[i])
	}
	return out
}

func wireToken(t *pos.Token) *prismtoken1.Token {
	out := &prismtoken1.Token{
		Drn: t.DRN, Pan: t.PAN, Ea: int16(t.EA), Tct: int16(t.TCT), Sgc: int32(t.SGC), Krn: int16(t.KRN), Ti: int16(t.TI),
		TokenClass: int16(t.Class), Subclass: int16(t.Subclass), Tid: int32(t.TID), TransferAmount: t.Amount, IsReservedTid: t.ReservedTID,
		Description: t.Description, StsUnitName: t.STSUnitName, ScaledAmount: t.ScaledAmount, ScaledUnitName: t.ScaledUnitName,
		TokenDec: t.Dec, TokenHex: t.Hex, IdSm: t.IDSM, VkKcv: t.VKKCV,
	}
	if a := t.New; a != nil {
		out.NewConfig_ = &prismtoken1.MeterConfigAdvice{
			ToSgc: int32(a.SGC), ToKrn: int16(a.KRN), ToTi: int16(a.TI), ToKen: int16(a.KEN),
			IdRecord: a.IDRecord, Record2: a.Record2, Rollover: a.Rollover, ToVkKcv: a.VKKCV,
		}
	}
	return out
}

func wireMeterTest(t *pos.MeterTestToken) *prismtoken1.MeterTestToken {
	return &prismtoken1.MeterTestToken{
		Drn: t.DRN, Pan: t.PAN, TokenClass: int16(t.Class), Subclass: int16(t.Subclass), Control: t.Control, Mfrcode: int16(t.Manufacturer),
		Description: t.Description, TokenDec: t.Dec, TokenHex: t.Hex,
	}
}
