package conductor

import (
	"context"
	"strconv"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// amount reads the amount field: two octets, or three for currency.
func amount(f *fields, i, subclass int) (uint32, error) {
	low, high := 2, 2
	switch {
	case subclass >= 4 && subclass <= 7:
		low, high = 3, 3
	case subclass > 7: // the module refuses the subclass
		high = 3
	}
	return ranged(f.integer(i, low, high))
}

func ranged(v uint32, code tsm.Code) (uint32, error) {
	if code != tsm.CodeOK {
		return 0, &tsm.Error{Code: code, Text: "a field has the wrong number of octets"}
	}
	return v, nil
}

// small turns a number field into an int that stays out of range if it is.
func small(n uint32) int { return int(min(n, 1<<20)) }

func vendCredit(ctx context.Context, c *session, f *fields, out *payload) error {
	in := tsm.CreditInput{
		Request: c.actor, Register: register(f.numbers[0]), PAN: f.texts[1], TI: small(f.numbers[2]),
		EA: small(f.numbers[3]), TCT: small(f.numbers[4]), SubClass: small(f.numbers[5]),
	}
	var err error
	if in.Amount, err = amount(f, 6, in.SubClass); err != nil {
		return err
	}
	if in.TID, err = ranged(f.integer(7, 1, 3)); err != nil {
		return err
	}
	m := c.server.cfg.Module
	return issue(ctx, m, out, func(tx tsm.Tx) (tsm.Issued, error) { return m.Credit(tx, in) })
}

// issue makes a token and answers it once it is durable.
func issue(ctx context.Context, m *tsm.Module, out *payload, token func(tsm.Tx) (tsm.Issued, error)) error {
	return m.Vault().Update(ctx, func(tx tsm.Tx) error {
		issued, err := token(tx)
		if err != nil {
			return err
		}
		out.reset()
		out.text(issued.Hex).text(issued.Dec)
		return nil
	})
}

func vendManagement(ctx context.Context, c *session, f *fields, out *payload) error {
	in := tsm.ManagementInput{
		Request: c.actor, Register: register(f.numbers[0]), PAN: f.texts[1], TI: small(f.numbers[2]),
		EA: small(f.numbers[3]), TCT: small(f.numbers[4]), SubClass: small(f.numbers[5]),
	}
	value, err := ranged(f.integer(6, 2, 2))
	if err != nil {
		return err
	}
	in.Value = uint16(value)
	if in.TID, err = ranged(f.integer(7, 1, 3)); err != nil {
		return err
	}
	m := c.server.cfg.Module
	return issue(ctx, m, out, func(tx tsm.Tx) (tsm.Issued, error) { return m.Management(tx, in) })
}

func vendKeyChange(ctx context.Context, c *session, f *fields, out *payload) error {
	in := tsm.KeyChangeInput{
		Request: c.actor, RegisterOld: register(f.numbers[0]), RegisterNew: register(f.numbers[1]), PAN: f.texts[2],
		TIOld: small(f.numbers[3]), EA: small(f.numbers[4]), TCT: small(f.numbers[5]), TINew: small(f.numbers[6]),
		NumTokens: small(f.numbers[7]),
	}
	m := c.server.cfg.Module
	return m.Vault().Update(ctx, func(tx tsm.Tx) error {
		set, err := m.KeyChange(tx, in)
		if err != nil {
			return err
		}
		var hex, dec string
		for _, t := range set.Tokens {
			hex += t.Hex
			dec += t.Dec
		}
		rollover := uint64(0)
		if set.Rollover {
			rollover = 1
		}
		out.reset()
		out.number(rollover).number(uint64(len(set.Tokens))).text(hex).text(dec)
		return nil
	})
}

func verifyToken(ctx context.Context, c *session, f *fields, out *payload) error {
	in := tsm.VerifyInput{
		Register: register(f.numbers[0]), PAN: f.texts[1], TI: small(f.numbers[2]), EA: small(f.numbers[3]),
		Token: f.texts[f.count-1],
	}
	m := c.server.cfg.Module
	return m.Vault().View(ctx, func(tx tsm.Tx) error {
		v, err := m.Verify(tx, in)
		if err != nil {
			return err
		}
		out.reset()
		verified(v, out)
		return nil
	})
}

// verified writes what a token says; nothing about one that is not valid.
func verified(v tsm.Verified, out *payload) {
	result, err := strconv.Atoi(string(v.Result))
	if err != nil || result != 0 {
		out.number(uint64(result)).number(0).number(0).hex(nil).hex(nil)
		return
	}
	out.number(0).number(uint64(v.Class)).number(uint64(v.SubClass))
	switch {
	case v.KeyChange || v.Class == 1: // neither amount nor TID
		out.hex(nil).hex(nil)
		return
	case v.Class == 0 && v.SubClass >= 4:
		out.hex([]byte{byte(v.Amount >> 16), byte(v.Amount >> 8), byte(v.Amount)})
	default:
		out.hex([]byte{byte(v.Amount >> 8), byte(v.Amount)})
	}
	out.hex([]byte{byte(v.TID >> 16), byte(v.TID >> 8), byte(v.TID)})
}
