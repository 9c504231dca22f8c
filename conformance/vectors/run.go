package vectors

import (
	"fmt"
	"slices"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// Sample is the name of the tables printed in IEC 62055-41.
const Sample = "iec-sample"

// Runner runs vectors with one cipher variant.
type Runner struct {
	// Tables serve EA07 vectors that name another set than the sample, or none;
	// nil leaves only the sample.
	Tables  *sts.Tables
	Variant sts.Variant
}

// Failure is the first value of a vector that is not as expected.
type Failure struct {
	// Step names the value: "decoderKey", "tid", "block", "token", "decoded amount"...
	Step          string
	Expected, Got string
}

func (f *Failure) Error() string {
	if f.Expected == "" {
		return fmt.Sprintf("%s: %s", f.Step, f.Got)
	}
	return fmt.Sprintf("%s: expected %s, got %s", f.Step, f.Expected, f.Got)
}

// cannot is a failure of a step that gave no value.
func cannot(step string, err error) *Failure { return &Failure{Step: step, Got: err.Error()} }

// check compares one value; an absent expectation is not checked. Values compare
// as text.
func check(step, expected, got string) error {
	if expected == "" || expected == got {
		return nil
	}
	return &Failure{step, expected, got}
}

// Run builds the vector's tokens and decodes them back. The error is a *Failure
// that names the first value that differs, in the order of the computation.
func (r Runner) Run(c Case) error {
	class, err := needed("class", c.Class, 3)
	if err != nil {
		return err
	}
	if len(c.Tokens) == 0 {
		return cannot("tokens", fmt.Errorf("the vector has none"))
	}
	if class == 1 {
		return r.meterTest(c)
	}
	engine, err := r.engine(c)
	if err != nil {
		return err
	}
	if len(c.SubClasses) != 0 || c.New != nil {
		return keyChange(engine, c)
	}
	key, _, err := c.Key.derive("decoderKey", c)
	if err != nil {
		return err
	}
	message, err := content(c, class)
	if err != nil {
		return err
	}
	return single(engine, key, c, message)
}

// engine chooses the STA tables that the vector is for.
func (r Runner) engine(c Case) (*sts.Engine, error) {
	tables := r.Tables
	switch {
	case c.STATables == Sample:
		tables = sts.IECSample()
	case c.STATables != "" && tables == nil:
		return nil, cannot("staTables", fmt.Errorf("the vector is for the tables %q; give them with --sta-tables", c.STATables))
	}
	return sts.NewEngine(tables, r.Variant), nil
}

// meterTest runs a class 1 vector, which has no key.
func (r Runner) meterTest(c Case) error {
	sub, err := needed("subclass", c.SubClass, 15)
	if err != nil {
		return err
	}
	control, err := needed("control", c.Control, 1<<36-1)
	if err != nil {
		return err
	}
	code, err := needed("manufacturerCode", c.ManufacturerCode, 1<<16-1)
	if err != nil {
		return err
	}
	message := sts.MeterTest{SubClass: sts.SubClass(sub), Control: control, Manufacturer: uint16(code)}
	return single(sts.NewEngine(nil, r.Variant), sts.DecoderKey{}, c, message)
}

// single builds and decodes the one token of a vector.
func single(engine *sts.Engine, key sts.DecoderKey, c Case, message sts.Message) error {
	if len(c.Tokens) != 1 {
		return cannot("tokens", fmt.Errorf("%d tokens where the vector has one", len(c.Tokens)))
	}
	block := c.Block
	if block == "" && len(c.Blocks) == 1 {
		block = c.Blocks[0]
	}
	if err := build(engine, key, message, "", block, c.Tokens[0]); err != nil {
		return err
	}
	got, err := decode(engine, key, "", block, c.Tokens[0])
	if err != nil {
		return err
	}
	return sameMessage(message, got)
}

// build makes a token and compares block and digits; which is " 2" for the second
// token of a set.
func build(engine *sts.Engine, key sts.DecoderKey, message sts.Message, which, block, token string) error {
	apdu, err := message.APDU()
	if err != nil {
		return cannot("block"+which, err)
	}
	if err := check("block"+which, upper(block), hex64(apdu.Block())); err != nil {
		return err
	}
	made, err := engine.Encrypt(key, apdu)
	if err != nil {
		return cannot("token"+which, err)
	}
	return check("token"+which, token, made.String())
}

// decode reads a token back and compares the block.
func decode(engine *sts.Engine, key sts.DecoderKey, which, block, token string) (sts.Message, error) {
	parsed, err := sts.ParseToken(token)
	if err != nil {
		return nil, cannot("token"+which, err)
	}
	apdu, err := engine.Decrypt(key, parsed)
	if err != nil {
		return nil, cannot("decoded token"+which, err)
	}
	if err := check("decoded block"+which, upper(block), hex64(apdu.Block())); err != nil {
		return nil, err
	}
	message, err := apdu.Message(key.EA())
	if err != nil {
		return nil, cannot("decoded token"+which, err)
	}
	return message, nil
}

func sameMessage(want, got sts.Message) error {
	return check("decoded token", fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got))
}

// keyChange runs a vector of class 2 subclasses 3, 4, 8, 9.
func keyChange(engine *sts.Engine, c Case) error {
	if c.New == nil {
		return cannot("new", fmt.Errorf("missing in a key-change vector"))
	}
	old, from, err := c.Key.derive("decoderKey", c)
	if err != nil {
		return err
	}
	key, to, err := c.New.derive("new.decoderKey", c)
	if err != nil {
		return err
	}
	change, err := c.New.change(key, from, to)
	if err != nil {
		return err
	}
	order, err := c.sections()
	if err != nil {
		return err
	}
	sections, err := change.Sections(len(order))
	if err != nil {
		return cannot("blocks", err)
	}
	var received sts.KeySections
	for i, number := range order {
		at := slices.IndexFunc(sections, func(s sts.KeySection) bool { return s.Number == number })
		if at < 0 {
			return cannot("subclasses", fmt.Errorf("the set has no section %d", number))
		}
		which, block := fmt.Sprintf(" %d", i+1), ""
		if len(c.Blocks) > 0 {
			block = c.Blocks[i]
		}
		if err := build(engine, old, sections[at], which, block, c.Tokens[i]); err != nil {
			return err
		}
		message, err := decode(engine, old, which, block, c.Tokens[i])
		if err != nil {
			return err
		}
		section, ok := message.(sts.KeySection)
		if !ok {
			return cannot("decoded token"+which, fmt.Errorf("it is no key section but %+v", message))
		}
		if received, err = received.With(section); err != nil {
			return cannot("decoded token"+which, err)
		}
	}
	return sameChange(received, change)
}

func sameChange(received sts.KeySections, want sts.KeyChange) error {
	got, complete, err := received.Complete()
	switch {
	case err != nil:
		return cannot("decoded set", err)
	case !complete:
		return cannot("decoded set", fmt.Errorf("incomplete"))
	case !got.Key.Equal(want.Key):
		return &Failure{"decoded new.decoderKey", keyText(want.Key), keyText(got.Key)}
	}
	if !received.CarriesSGC() {
		got.SGC = want.SGC
	}
	got.Key, want.Key = sts.DecoderKey{}, sts.DecoderKey{}
	return check("decoded set", fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got))
}
