package request

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const propertyPrefix = "Property."

// timeLayout has whole seconds and always says Z.
const timeLayout = "2006-01-02T15:04:05Z"

// Marshal returns the text that is signed.
func (r *Request) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	d := armor.Document{Title: title}
	add := func(name, value string) {
		if value != "" {
			d.Fields = append(d.Fields, armor.Field{Name: name, Value: value})
		}
	}
	add("Kind", string(r.Kind))
	add("Request-ID", r.ID)
	add("Created", r.Created.UTC().Format(timeLayout))
	add("Not-Before", r.NotBefore.UTC().Format(timeLayout))
	add("Expires", r.Expires.UTC().Format(timeLayout))
	add("VCM", r.VCM)
	if r.Kind == Create {
		add("SSHAdmin-Key", KeyText(r.SSHAdminKey))
		add("Request-Key", KeyText(r.RequestKey))
	}
	add("Share-Key", r.ShareKey)
	for _, name := range r.Properties.Names() {
		value, _ := r.Properties.Value(name)
		d.Fields = append(d.Fields, armor.Field{Name: propertyPrefix + name, Value: value})
	}
	if r.Share != nil {
		add("Start-Share", encodeShare(r.Share))
	}
	return d.Marshal()
}

// Sign returns the request file, and makes r verifiable. A create request must
// be signed by the key that it introduces.
func (r *Request) Sign(signer ssh.Signer) ([]byte, error) {
	message, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	if r.Kind == Create && !bytes.Equal(r.RequestKey.Marshal(), signer.PublicKey().Marshal()) {
		return nil, errkind.Errorf(errkind.Invalid, "a create request is signed by the key that it introduces")
	}
	file, err := armor.Sign(message, signer, Namespace)
	if err != nil {
		return nil, err
	}
	r.file = file
	return file, nil
}

// Parse reads a request file. It checks the form and that there is a signature,
// not whose: nothing in the request is to be believed before Verify.
func Parse(file []byte) (*Request, error) {
	message, _, err := armor.Split(file)
	if err != nil {
		return nil, asForm(err)
	}
	d, err := armor.Parse(message, title)
	if err != nil {
		return nil, asForm(err)
	}
	r := &Request{file: bytes.Clone(file)}
	for _, f := range d.Fields {
		if err := r.set(f); err != nil {
			return nil, err
		}
	}
	again, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, message) {
		return nil, formErrorf("a field is missing, empty, out of order or not in its only form; this would be it:\n%s", again)
	}
	return r, nil
}

func asForm(err error) error {
	return &classError{class: ErrForm, err: errkind.Errorf(errkind.Of(err), "tenant request: %w", err)}
}

func (r *Request) set(f armor.Field) (err error) {
	if name, ok := strings.CutPrefix(f.Name, propertyPrefix); ok {
		err = r.Properties.Set(name, f.Value)
		if err != nil && !errors.Is(err, ErrForm) && !errors.Is(err, ErrUnknownProperty) {
			err = asForm(err)
		}
		return err
	}
	switch f.Name {
	case "Kind":
		r.Kind = Kind(f.Value)
	case "Request-ID":
		r.ID = f.Value
	case "Created":
		r.Created, err = parseTime(f)
	case "Not-Before":
		r.NotBefore, err = parseTime(f)
	case "Expires":
		r.Expires, err = parseTime(f)
	case "VCM":
		r.VCM = f.Value
	case "SSHAdmin-Key":
		r.SSHAdminKey, err = ParseKey(f.Value)
	case "Request-Key":
		r.RequestKey, err = ParseKey(f.Value)
	case "Share-Key":
		r.ShareKey = f.Value
	case "Start-Share":
		r.Share, err = decodeShare(f.Value)
	default:
		err = formErrorf("there is no field %q", f.Name)
	}
	return err
}

func parseTime(f armor.Field) (time.Time, error) {
	t, err := time.Parse(timeLayout, f.Value)
	if err != nil {
		return time.Time{}, formErrorf("%s %.40q is no time like %s", f.Name, f.Value, timeLayout)
	}
	return t, nil
}

// SignerKey is the key that the signature claims, for display only.
func (r *Request) SignerKey() (ssh.PublicKey, error) { return armor.SignerKey(r.file) }

// File returns the file that r was parsed from or signed to.
func (r *Request) File() []byte { return bytes.Clone(r.file) }

// Verify reports whether key signed r, r is about vcm (empty for Create), and r
// is valid at now. The error wraps ErrSignature, ErrWrongVCM, ErrNotYetValid or
// ErrExpired; the first three questions come before the clock's, so that an
// error about time means that a right clock would have let it pass.
func (r *Request) Verify(key ssh.PublicKey, vcm string, now time.Time) error {
	if err := r.VerifySignature(key); err != nil {
		return err
	}
	if r.VCM != vcm {
		return &classError{class: ErrWrongVCM, err: errkind.Errorf(errkind.Refused,
			"the request is for %s, not for %s", orNew(r.VCM), orNew(vcm))}
	}
	return r.VerifyTime(now)
}

// VerifySignature reports whether key signed r.
func (r *Request) VerifySignature(key ssh.PublicKey) error {
	if r.file == nil {
		return &classError{class: ErrSignature, err: errkind.Errorf(errkind.Integrity, "the request is not signed")}
	}
	if key == nil {
		return &classError{class: ErrSignature, err: errkind.Errorf(errkind.Integrity, "there is no key to verify the request with")}
	}
	if _, err := armor.Verify(r.file, key, Namespace); err != nil {
		return &classError{class: ErrSignature, err: errkind.Errorf(errkind.Of(err), "tenant request: %w", err)}
	}
	return nil
}

// VerifyTime reports whether r is valid at now.
func (r *Request) VerifyTime(now time.Time) error {
	at := now.UTC().Truncate(time.Second)
	switch {
	case at.Before(r.NotBefore):
		return &classError{class: ErrNotYetValid, err: errkind.Errorf(errkind.Refused,
			"the request is valid from %s, and it is %s", stamp(r.NotBefore), stamp(at))}
	case at.After(r.Expires):
		return &classError{class: ErrExpired, err: errkind.Errorf(errkind.Refused,
			"the request expired at %s, and it is %s", stamp(r.Expires), stamp(at))}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(timeLayout) }

func orNew(vcm string) string {
	if vcm == "" {
		return "a new VCM"
	}
	return fmt.Sprintf("VCM %s", vcm)
}
