// Package vectors reads and runs files of STS token vectors in the format
// sts-vectors/1, which README.md describes: every token is built from its
// inputs and decoded back, and each intermediate value that the file gives is
// compared on the way.
package vectors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Format is the value of a vector file's field "format".
const Format = "sts-vectors/1"

// MaxFile bounds a vector file.
const MaxFile = 64 << 20

// File is a vector file.
type File struct {
	Format  string `json:"format"`
	About   string `json:"about"`
	Vectors []Case `json:"vectors"`
}

// Case is one vector. A field that is absent is nil or empty.
type Case struct {
	ID string `json:"id"`
	Key
	EA        *Number `json:"ea"`
	PAN       string  `json:"pan"`
	STATables string  `json:"staTables"`

	Class      *Number  `json:"class"`
	SubClass   *Number  `json:"subclass"`
	SubClasses []Number `json:"subclasses"`

	Time string  `json:"time"`
	TID  *Number `json:"tid"`
	RND  *Number `json:"rnd"`

	Amount        *Number `json:"amount"`
	EncodedAmount string  `json:"encodedAmount"`
	IssuedAmount  *Number `json:"issuedAmount"`
	CurrencyUnits *Number `json:"currencyUnits"`
	IssuedUnits   *Number `json:"issuedUnits"`
	Watts         *Number `json:"watts"`
	Value         *Number `json:"value"`

	Control          *Number `json:"control"`
	ManufacturerCode *Number `json:"manufacturerCode"`

	New *NewKey `json:"new"`

	Block  string   `json:"block"`
	Blocks []string `json:"blocks"`
	Tokens []string `json:"tokens"`
}

// Key is a vending key and what a decoder key derives from besides the meter.
type Key struct {
	DKGA       *Number `json:"dkga"`
	KT         *Number `json:"kt"`
	SGC        *Number `json:"sgc"`
	KRN        *Number `json:"krn"`
	TI         *Number `json:"ti"`
	KEN        *Number `json:"ken"`
	BaseDate   *Number `json:"baseDate"`
	VendingKey string  `json:"vendingKey"`
	DecoderKey string  `json:"decoderKey"`
}

// NewKey is the key that a key-change set brings.
type NewKey struct {
	Key
	Rollover *bool `json:"rollover"`
}

// Number is a decimal integer, written as a JSON number or as a string, such as
// a supply group code with its leading zeros or an amount beyond 64 bits.
type Number string

// UnmarshalJSON accepts 12, "12" and "-12", nothing else.
func (n *Number) UnmarshalJSON(p []byte) error {
	text := string(p)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(p, &text); err != nil {
			return err
		}
	}
	digits := strings.TrimPrefix(text, "-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return fmt.Errorf("%s is not a decimal integer", p)
	}
	*n = Number(text)
	return nil
}

// Uint returns the number if it is at most limit.
func (n Number) Uint(limit uint64) (uint64, error) {
	v, err := strconv.ParseUint(string(n), 10, 64)
	if err != nil || v > limit {
		return 0, fmt.Errorf("%s is outside 0 to %d", n, limit)
	}
	return v, nil
}

// Parse reads a vector file. Unknown fields, another format, fields given twice
// and data after the file are errors, so that nothing is left unchecked
// silently.
func Parse(p []byte) (File, error) {
	// Another format is told before its unknown fields are.
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(p, &head); err != nil {
		return File{}, fmt.Errorf("not JSON: %w", err)
	}
	if head.Format != Format {
		return File{}, fmt.Errorf("format %q is not %q", head.Format, Format)
	}
	if err := once(json.NewDecoder(bytes.NewReader(p)), ""); err != nil {
		return File{}, err
	}
	var f File
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return File{}, err
	}
	if f.Vectors == nil {
		return File{}, fmt.Errorf("the list \"vectors\" is missing")
	}
	seen := make(map[string]bool, len(f.Vectors))
	for i, c := range f.Vectors {
		if c.ID == "" {
			return File{}, fmt.Errorf("vector %d has no id", i+1)
		}
		if seen[c.ID] {
			return File{}, fmt.Errorf("two vectors have the id %q", c.ID)
		}
		seen[c.ID] = true
	}
	return f, nil
}

// once reports a field that an object has twice; encoding/json would take the
// last one silently. It matches names as encoding/json does, whatever their case.
func once(d *json.Decoder, path string) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return err
			}
			key := strings.ToLower(fmt.Sprint(name))
			if seen[key] {
				return fmt.Errorf("field %q is given twice in %s", name, strings.TrimPrefix(path+" object", " "))
			}
			seen[key] = true
			if err := once(d, fmt.Sprintf("%s %v", path, name)); err != nil {
				return err
			}
		}
		_, err = d.Token()
	case json.Delim('['):
		for i := 1; d.More(); i++ {
			if err := once(d, fmt.Sprintf("%s %d", path, i)); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
