package meter_test

import (
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

func TestManagement(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, nil)
		m := is.meter(t)
		m.SetTamper()
		tid := sts.TID(5000)
		send := func(sub sts.SubClass, value uint16) {
			t.Helper()
			tid++
			token := is.management(t, sub, tid, value)
			enter(t, m, token, meter.Accepted)
			enter(t, m, token, meter.UsedError)
		}
		send(sts.SetMaximumPowerLimit, 0x416A)
		send(sts.SetMaximumPhasePowerUnbalanceLimit, 0x8000)
		send(sts.SetTariffRate, 7)
		send(sts.SetWaterMeterFactor, 9)
		send(sts.ClearTamperCondition, 0)
		send(sts.WriteExtendedToken, 0xFC01) // flag 0 on
		send(sts.WriteExtendedToken, 0xFC14) // flag 10 off
		send(sts.WriteExtendedToken, 0x007B) // register 0 = 123
		s := m.State()
		if *s.MaximumPowerLimit != 20004 || *s.PhaseUnbalanceLimit != 180224 || *s.TariffRate != 7 || *s.WaterFactor != 9 || s.Tamper {
			t.Errorf("settings %+v", s)
		}
		if len(s.Flags) != 2 || !s.Flags[0] || s.Flags[10] || len(s.Controls) != 1 || s.Controls[0] != 123 {
			t.Errorf("flags %v, registers %v", s.Flags, s.Controls)
		}
	})
}

func TestClearCredit(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, nil)
		full := is.meter(t).State()
		full.Credit = meter.Units{Electricity: 1, Water: 2, Gas: 3, Time: 4}
		full.Currency = meter.Money{Electricity: "5", Water: "6", Gas: "7", Time: "-8"}
		for register := range 8 {
			m := reload(t, full)
			enter(t, m, is.management(t, sts.ClearCredit, 5000, uint16(register)), meter.Accepted)
			want := full
			switch register {
			case 0:
				want.Credit.Electricity = 0
			case 1:
				want.Credit.Water = 0
			case 2:
				want.Credit.Gas = 0
			case 3:
				want.Credit.Time = 0
			case 4:
				want.Currency.Electricity = "0"
			case 5:
				want.Currency.Water = "0"
			case 6:
				want.Currency.Gas = "0"
			case 7:
				want.Currency.Time = "0"
			}
			if s := m.State(); s.Credit != want.Credit || s.Currency != want.Currency {
				t.Errorf("register %d: %+v %+v", register, s.Credit, s.Currency)
			}
		}
		m := reload(t, full)
		enter(t, m, is.management(t, sts.ClearCredit, 5000, sts.RegisterAll), meter.Accepted)
		if s := m.State(); s.Credit != (meter.Units{}) || s.Currency != (meter.Money{Electricity: "0", Water: "0", Gas: "0", Time: "0"}) {
			t.Errorf("all registers: %+v %+v", s.Credit, s.Currency)
		}
	})
}

func TestDisplay(t *testing.T) {
	both(t, func(t *testing.T, ea int) {
		is := newIssuer(t, ea, nil)
		m := is.meter(t)
		enter(t, m, is.credit(t, sts.Electricity, 5000, 102), meter.Accepted)
		enter(t, m, is.management(t, sts.WriteExtendedToken, 5001, 0xFC01), meter.Accepted)
		enter(t, m, is.management(t, sts.WriteExtendedToken, 5002, 0x0C05), meter.Accepted)
		readFlag, err := sts.ReadFlagControl(0)
		if err != nil {
			t.Fatal(err)
		}
		readRegister, err := sts.ReadRegisterControl(3)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name, token string
			lines       int
			value       string
		}{
			// The first three are published tokens.
			{"all", "56493153725450313471", 18, "closed"},
			{"load switch", "00000000000150997584", 1, "closed"},
			{"KRN", "18446744073843772416", 1, "1"},
			{"totals", is.token(t, sts.MeterTest{SubClass: 1, Control: 4}), 1, "electricity 10.2 kWh"},
			{"SGC", is.token(t, sts.MeterTest{Control: 1 << 15}), 1, "123456"},
			{"DRN", is.token(t, sts.MeterTest{Control: 1 << 17}), 1, "0100000000008"},
			{"unknown test", is.token(t, sts.MeterTest{Control: 1 << 20}), 1, "not supported"},
			{"nothing", is.token(t, sts.MeterTest{}), 0, ""},
			{"own manufacturer", is.token(t, sts.MeterTest{SubClass: 7, Control: 3, Manufacturer: 100}), 0, ""},
			{"flag 0", is.token(t, sts.MeterTest{SubClass: 2, Control: readFlag}), 1, "true"},
			{"register 3", is.token(t, sts.MeterTest{SubClass: 2, Control: readRegister}), 1, "5"},
			{"register 4", is.token(t, sts.MeterTest{SubClass: 2, Control: readRegister + 1<<30}), 1, "not set"},
		} {
			r := enter(t, m, test.token, meter.Accepted)
			if len(r.Display) != test.lines || test.lines > 0 && r.Display[0].Value != test.value {
				t.Errorf("%s: %+v", test.name, r.Display)
			}
			enter(t, m, test.token, meter.Accepted) // a test token is never used up
		}
	})
}
