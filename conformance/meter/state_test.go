package meter_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/meter"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// reload makes a meter of a state, through its file.
func reload(t *testing.T, s meter.State) *meter.Meter {
	t.Helper()
	p, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := meter.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// busy returns a state with every field in use.
func busy(t *testing.T) []byte {
	t.Helper()
	is := newIssuer(t, 11, nil)
	m := is.meter(t)
	m.SetTamper()
	enter(t, m, is.credit(t, sts.Electricity, 5000, 102), meter.Accepted)
	for i, sub := range []sts.SubClass{0, 2, 6, 7, 10} {
		enter(t, m, is.management(t, sub, sts.TID(5001+i), 77), meter.Accepted)
	}
	enter(t, m, is.management(t, 10, 5010, 0xFC01), meter.Accepted)
	enter(t, m, is.change(t, newKey(t, 11, 2), 4)[2], meter.SectionHeld)
	return marshal(t, m)
}

func TestStateSurvivesItsFile(t *testing.T) {
	t.Parallel()
	p := busy(t)
	s, err := meter.ParseState(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Marshal()
	if err != nil || !bytes.Equal(p, again) {
		t.Fatalf("%v\n%s\n%s", err, p, again)
	}
	m := reload(t, s)
	path := filepath.Join(t.TempDir(), "saved.json")
	if err := m.Save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if saved, err := os.ReadFile(path); err != nil || !bytes.Equal(saved, p) {
		t.Errorf("%v: the saved file differs", err)
	}
}

func TestStateRefusesOtherForms(t *testing.T) {
	t.Parallel()
	good := string(busy(t))
	if _, err := meter.ParseState([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][2]string{
		"format":           {`"tesserae-meter/1"`, `"tesserae-meter/2"`},
		"unknown field":    {`"ea": 11,`, "\"ea\": 11,\n  \"eb\": 1,"},
		"spaces":           {`"ea": 11,`, `"ea":  11,`},
		"ea":               {`"ea": 11,`, `"ea": 9,`},
		"short key":        {`"ea": 11,`, `"ea": 7,`},
		"lower case key":   {`"key": "1111`, `"key": "aaaa`},
		"krn":              {`"krn": 1,`, `"krn": 0,`},
		"ti":               {`"ti": 1,`, `"ti": 100,`},
		"kt":               {`"kt": 2,`, `"kt": 3,`},
		"ken":              {`"ken": 255,`, `"ken": 256,`},
		"base date":        {`"baseDate": 2014,`, `"baseDate": 2015,`},
		"sgc":              {`"sgc": "123456"`, `"sgc": "12345"`},
		"check digit":      {`"drn": "0100000000008"`, `"drn": "0100000000009"`},
		"pan of another":   {`"pan": "000001000000000082"`, `"pan": "600727000000000009"`},
		"credit":           {`"electricity": 102`, `"electricity": 1000000000001`},
		"negative credit":  {`"electricity": 102`, `"electricity": -1`},
		"currency":         {`"electricity": "0"`, `"electricity": "00"`},
		"currency text":    {`"electricity": "0"`, `"electricity": "x"`},
		"unsorted tids":    {`5010`, `1`},
		"register":         {`"0": 77`, `"64": 77`},
		"register's value": {`"0": 77`, `"0": 1024`},
		"flag":             {`"0": true`, `"512": true`},
		"section":          {`"subclass": 8`, `"subclass": 5`},
		"section key":      {`"key": "12121212"`, `"key": "1212121g"`},
		"trailing":         {"}\n", "}\n\n"},
		"no newline":       {"}\n", "}"},
	} {
		at := strings.LastIndex(good, edit[0])
		if at < 0 {
			t.Fatalf("%s: %s is not in the state", name, edit[0])
		}
		bad := good[:at] + edit[1] + good[at+len(edit[0]):]
		if s, err := meter.ParseState([]byte(bad)); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	if _, err := meter.Load(filepath.Join(t.TempDir(), "none")); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("missing file: %v", err)
	}
}

func TestConfigRefusals(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*meter.Config){
		"letters":         func(c *meter.Config) { c.DRN = "0100000000x08" },
		"length":          func(c *meter.Config) { c.DRN = "010000000008" },
		"DRN check digit": func(c *meter.Config) { c.DRN = "12345678904" },
		"all ones":        func(c *meter.Config) { c.DRN = "11111111113" },
		"PAN check digit": func(c *meter.Config) { c.DRN = "600727000000000008" },
		"IIN":             func(c *meter.Config) { c.DRN = "500727000000000009" },
		"ea":              func(c *meter.Config) { c.EA = 9 },
		"tct":             func(c *meter.Config) { c.TCT = 0 },
		"sgc":             func(c *meter.Config) { c.SGC = 1000000 },
		"krn":             func(c *meter.Config) { c.KRN = 10 },
		"DITK with krn":   func(c *meter.Config) { c.KT = 0 },
		"common numeric":  func(c *meter.Config) { c.KT = 3 },
		"base date":       func(c *meter.Config) { c.BaseDate = 2015 },
		"key":             func(c *meter.Config) { c.DecoderKey = c.DecoderKey[:15] },
		"made too late":   func(c *meter.Config) { c.Manufactured = noon.AddDate(30, 0, 0) },
		"tables for EA11": func(c *meter.Config) { c.STATables = &meter.Tables{} },
		"no tables": func(c *meter.Config) {
			c.EA, c.DecoderKey, c.STATables = 7, c.DecoderKey[:8], &meter.Tables{}
		},
	} {
		c := newIssuer(t, 11, nil).config
		edit(&c)
		if m, err := meter.New(c); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	for _, drn := range []string{"00000000000", "0100000000008", "11111111115", "600727000000000009", "000001000000000082", "600727111111111153"} {
		c := newIssuer(t, 11, nil).config
		c.DRN = drn
		if _, err := meter.New(c); err != nil {
			t.Errorf("%s: %v", drn, err)
		}
	}
}
