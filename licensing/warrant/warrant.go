// Package warrant is the link between the maker and a unit.
//
// A unit makes its keys itself and prints an identity request, signed by its
// unit key. The maker answers with a warrant, signed by his root: this unit key
// and this encryption key belong to the unit with this ESN, which left the
// factory with these features. Whoever pins the maker's root can follow the
// chain from there to every host certificate and VCM file.
package warrant

import (
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing"
)

// SSHSIG namespaces.
const (
	RequestNamespace = "tesserae-identity-request"
	Namespace        = "tesserae-warrant"
)

const (
	requestTitle = "tesserae identity request"
	title        = "tesserae warrant"
)

// Unit is what a warrant binds together.
type Unit struct {
	ESN           string
	ModuleID      string
	FirmwareID    string
	HardwareID    string
	UnitKey       string // authorized_keys form, one line, no comment
	EncryptionKey string // X25519, base64
}

// Request is a unit's request for a warrant.
type Request struct {
	Unit
	Made time.Time
}

// Warrant is the maker's statement.
type Warrant struct {
	Unit
	Features licensing.Features // set in the factory
	// TransactionKey is the maker's ECDSA P-384 key for transaction licences,
	// authorized_keys form.
	TransactionKey string
	Issued         time.Time
}

func (u Unit) fields() []armor.Field {
	return []armor.Field{
		{Name: "ESN", Value: u.ESN},
		{Name: "Module-ID", Value: u.ModuleID},
		{Name: "Firmware-ID", Value: u.FirmwareID},
		{Name: "Hardware-ID", Value: u.HardwareID},
		{Name: "Unit-Key", Value: u.UnitKey},
		{Name: "Encryption-Key", Value: u.EncryptionKey},
	}
}

func (u Unit) check() error {
	if err := licensing.CheckESN(u.ESN); err != nil {
		return err
	}
	if _, err := ParseKey(u.UnitKey); err != nil {
		return errkind.Errorf(errkind.Invalid, "Unit-Key: %w", err)
	}
	if err := tenantshare.CheckKey(u.EncryptionKey); err != nil {
		return errkind.Errorf(errkind.Invalid, "Encryption-Key: %w", err)
	}
	return nil
}

func unitOf(d armor.Document) Unit {
	get := func(name string) string { v, _ := d.Get(name); return v }
	return Unit{
		ESN: get("ESN"), ModuleID: get("Module-ID"), FirmwareID: get("Firmware-ID"),
		HardwareID: get("Hardware-ID"), UnitKey: get("Unit-Key"), EncryptionKey: get("Encryption-Key"),
	}
}

// ParseKey reads a public key in authorized_keys form.
func ParseKey(text string) (ssh.PublicKey, error) {
	k, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(rest) != 0 {
		return nil, errkind.Errorf(errkind.Invalid, "%.60q is no public key", text)
	}
	return k, nil
}

// SignRequest returns the request file, signed by the unit key.
func SignRequest(r Request, unit ssh.Signer) ([]byte, error) {
	message, err := r.marshal()
	if err != nil {
		return nil, err
	}
	return armor.Sign(message, unit, RequestNamespace)
}

func (r Request) marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return armor.Document{Title: requestTitle, Fields: append(r.fields(), date("Made", r.Made))}.Marshal()
}

// ReadRequest reads a request file and checks that the unit key in it signed it.
func ReadRequest(file []byte) (Request, error) {
	message, _, err := armor.Split(file)
	if err != nil {
		return Request{}, fmt.Errorf("identity request: %w", err)
	}
	d, err := armor.Parse(message, requestTitle)
	if err != nil {
		return Request{}, err
	}
	r := Request{Unit: unitOf(d)}
	if r.Made, err = parseDate(d, "Made"); err != nil {
		return Request{}, err
	}
	if err := canonical(message, r.marshal); err != nil {
		return Request{}, err
	}
	key, err := ParseKey(r.UnitKey)
	if err != nil {
		return Request{}, err
	}
	if _, err := armor.Verify(file, key, RequestNamespace); err != nil {
		return Request{}, fmt.Errorf("identity request: %w", err)
	}
	return r, nil
}

// Sign returns the warrant file, signed by the maker's root.
func Sign(w Warrant, root ssh.Signer) ([]byte, error) {
	message, err := w.marshal()
	if err != nil {
		return nil, err
	}
	return armor.Sign(message, root, Namespace)
}

func (w Warrant) marshal() ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	k, err := ParseKey(w.TransactionKey)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "Transaction-Key: %w", err)
	}
	if k.Type() != ssh.KeyAlgoECDSA384 {
		return nil, errkind.Errorf(errkind.Invalid, "Transaction-Key is %s, not %s", k.Type(), ssh.KeyAlgoECDSA384)
	}
	f := append(w.fields(),
		armor.Field{Name: "Features", Value: w.Features.String()},
		armor.Field{Name: "Word", Value: w.Features.Hex()},
		armor.Field{Name: "Transaction-Key", Value: w.TransactionKey},
		date("Issued", w.Issued))
	return armor.Document{Title: title, Fields: f}.Marshal()
}

// Read reads a warrant file and checks that root signed it. It does not say
// for which unit it is: see Warrant.Matches.
func Read(file []byte, root ssh.PublicKey) (Warrant, error) {
	message, err := armor.Verify(file, root, Namespace)
	if err != nil {
		return Warrant{}, fmt.Errorf("warrant: %w", err)
	}
	return parse(message)
}

// Inspect reads a warrant file without checking who signed it.
func Inspect(file []byte) (Warrant, error) {
	message, _, err := armor.Split(file)
	if err != nil {
		return Warrant{}, fmt.Errorf("warrant: %w", err)
	}
	return parse(message)
}

func parse(message []byte) (Warrant, error) {
	d, err := armor.Parse(message, title)
	if err != nil {
		return Warrant{}, err
	}
	w := Warrant{Unit: unitOf(d)}
	features, _ := d.Get("Features")
	if w.Features, err = licensing.ParseFeatures(features); err != nil {
		return Warrant{}, err
	}
	w.TransactionKey, _ = d.Get("Transaction-Key")
	if w.Issued, err = parseDate(d, "Issued"); err != nil {
		return Warrant{}, err
	}
	return w, canonical(message, w.marshal)
}

// Matches reports whether the warrant is for a unit with this ESN and unit key.
func (w Warrant) Matches(esn, unitKey string) error {
	if w.ESN != esn {
		return errkind.Errorf(errkind.Refused, "the warrant is for the unit %s, not %s", w.ESN, esn)
	}
	if w.UnitKey != unitKey {
		return errkind.Errorf(errkind.Integrity, "the warrant of %s certifies another unit key", esn)
	}
	return nil
}

func canonical(message []byte, marshal func() ([]byte, error)) error {
	again, err := marshal()
	if err != nil {
		return err
	}
	if string(again) != string(message) {
		return errkind.Errorf(errkind.Invalid, "the file is not in its canonical form")
	}
	return nil
}

func date(name string, t time.Time) armor.Field {
	return armor.Field{Name: name, Value: t.UTC().Format(time.RFC3339)}
}

func parseDate(d armor.Document, name string) (time.Time, error) {
	text, _ := d.Get(name)
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, errkind.Errorf(errkind.Invalid, "%s %q is no date", name, text)
	}
	return t, nil
}
