package meter

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// decoder reads tokens under the meter's key. It is the only place of this
// package that uses hsm/sts, and it judges nothing but the checksum.
type decoder struct {
	engine *sts.Engine
	key    sts.DecoderKey
}

// token is what one token carries; what its class and subclass do not have is zero.
type token struct {
	class, subclass uint8
	// fault is a field that the standard does not define.
	fault error

	tid          uint32
	units        uint32   // 16-bit amount, decoded
	currency     *big.Int // 20-bit amount, decoded
	value        uint16   // class 2, as it is
	control      uint64   // class 1
	manufacturer uint16   // class 1
	section      Section  // key change
}

func newDecoder(s State) (decoder, error) {
	var tables *sts.Tables
	if s.STATables != nil {
		p, err := json.Marshal(s.STATables)
		if err != nil {
			return decoder{}, fmt.Errorf("encode STA tables: %w", err)
		}
		if tables, err = sts.ParseTables(tablesName, p); err != nil {
			return decoder{}, fmt.Errorf("STA tables: %w", err)
		}
	}
	raw, err := hex.DecodeString(s.Key)
	if err != nil {
		return decoder{}, errors.New("the decoder key is not hexadecimal")
	}
	key, err := sts.NewDecoderKey(sts.EA(s.EA), sts.KeyType(s.KT), raw)
	if err != nil {
		return decoder{}, fmt.Errorf("decoder key: %w", err)
	}
	return decoder{sts.NewEngine(tables, sts.TableDriven), key}, nil
}

// decode reads twenty digits; ok is false if the checksum is wrong, and err is
// for a number that is no token.
func (d decoder) decode(number string) (t token, ok bool, err error) {
	raw, err := sts.ParseToken(number)
	if err != nil {
		return token{}, false, err
	}
	t.class = uint8(raw.Class())
	if t.class == 3 {
		return t, true, nil
	}
	apdu, err := d.engine.Decrypt(d.key, raw)
	if err != nil && !errors.Is(err, sts.ErrDDTKCredit) {
		return t, false, nil
	}
	t.subclass = uint8(apdu.SubClass())
	m, err := apdu.Message(d.key.EA())
	if err != nil {
		t.fault = err
		return t, true, nil
	}
	switch m := m.(type) {
	case sts.Credit:
		t.tid, t.units = uint32(m.TID), uint32(m.Amount.Units())
	case sts.CurrencyCredit:
		t.tid = uint32(m.TID)
		t.currency, _ = new(big.Int).SetString(m.Amount.Currency().Units(), 10)
	case sts.MeterTest:
		t.control, t.manufacturer = m.Control, m.Manufacturer
	case sts.Management:
		t.tid, t.value, t.units = uint32(m.TID), m.Value, uint32(sts.Amount16(m.Value).Units())
	case sts.KeySection:
		t.section = Section{
			SubClass: int(t.subclass), Key: fmt.Sprintf("%08X", m.Key), KENHalf: int(m.KEN), KRN: int(m.KRN), KT: int(m.KT),
			Rollover: m.Rollover, Three: m.Three, TI: int(m.TI), SGC: uint32(m.SGC),
		}
	}
	return t, true, nil
}

// tablesName is the name of tables that a meter was made with.
const tablesName = "meter"

// ParseTables reads a JSON file of STA tables and checks that they are well formed.
func ParseTables(p []byte) (*Tables, error) {
	if _, err := sts.ParseTables(tablesName, p); err != nil {
		return nil, err
	}
	var t Tables
	if err := json.Unmarshal(p, &t); err != nil {
		return nil, fmt.Errorf("STA tables: %w", err)
	}
	return &t, nil
}

// KeyCheckValue identifies the meter's key without revealing it.
func (m *Meter) KeyCheckValue() string { return m.decoder.key.KCV().String() }
