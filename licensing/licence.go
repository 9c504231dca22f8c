package licensing

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Namespace is the SSHSIG namespace of licence files.
const Namespace = "tesserae-licence"

const licenceTitle = "tesserae licence"

// Type is what a licence is for.
type Type string

const (
	// MaxActiveVCMs is how many VCMs may be active at once.
	MaxActiveVCMs Type = "max-active-vcms"
	// Feature adds features.
	Feature Type = "feature"
	// SpeedUpgrade raises the unit's speed rating.
	SpeedUpgrade Type = "speed"
)

// MaxVCMs is how many VCMs a Mid or High speed unit can hold.
const MaxVCMs = 1000

// maxVCMsBase is how many a Base speed unit can hold.
const maxVCMsBase = 5

// Licence is one licence of one unit.
type Licence struct {
	Type     Type
	ESN      string
	Active   int      // MaxActiveVCMs
	Features Features // Feature and SpeedUpgrade
	Serial   string   // the maker's, so that two licences never are the same file
	Issued   time.Time
}

// ParseValue sets the value of l from its text form for l.Type.
func (l *Licence) ParseValue(text string) error {
	switch l.Type {
	case MaxActiveVCMs:
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > MaxVCMs || text != strconv.Itoa(n) {
			return errkind.Errorf(errkind.Invalid, "licence value %q: a %s licence is for 1 to %d", text, l.Type, MaxVCMs)
		}
		l.Active = n
		return nil
	case Feature, SpeedUpgrade:
		f, err := ParseFeatures(text)
		if err != nil {
			return errkind.Errorf(errkind.Invalid, "licence value: %w", err)
		}
		l.Features = f
		return l.checkFeatures()
	}
	return errkind.Errorf(errkind.Invalid, "licence type %q: known are %s, %s and %s", l.Type, MaxActiveVCMs, Feature, SpeedUpgrade)
}

func (l *Licence) checkFeatures() error {
	f := l.Features
	switch {
	case f == 0:
		return errkind.Errorf(errkind.Invalid, "the licence names no feature")
	case l.Type == Feature && f&SpeedBits != 0:
		return errkind.Errorf(errkind.Invalid, "%s is a speed rating: it needs a licence of type %s", f&SpeedBits, SpeedUpgrade)
	case l.Type == SpeedUpgrade && (f&^SpeedBits != 0 || f&(f-1) != 0):
		return errkind.Errorf(errkind.Invalid, "a %s licence names exactly one of HSMSpeed0, HSMSpeed1 and HSMSpeed2", SpeedUpgrade)
	}
	return nil
}

// Value is the value's text form.
func (l *Licence) Value() string {
	if l.Type == MaxActiveVCMs {
		return strconv.Itoa(l.Active)
	}
	return l.Features.String()
}

// Marshal returns the licence's text, without a signature.
func (l *Licence) Marshal() ([]byte, error) {
	if err := (&Licence{Type: l.Type}).ParseValue(l.Value()); err != nil {
		return nil, err
	}
	if err := CheckESN(l.ESN); err != nil {
		return nil, err
	}
	d := armor.Document{Title: licenceTitle, Fields: []armor.Field{
		{Name: "Type", Value: string(l.Type)},
		{Name: "ESN", Value: l.ESN},
		{Name: "Value", Value: l.Value()},
	}}
	if l.Type != MaxActiveVCMs {
		d.Fields = append(d.Fields, armor.Field{Name: "Word", Value: l.Features.Hex()})
	}
	d.Fields = append(d.Fields,
		armor.Field{Name: "Serial", Value: l.Serial},
		armor.Field{Name: "Issued", Value: l.Issued.UTC().Format(time.RFC3339)})
	return d.Marshal()
}

// parseLicence is the inverse of Marshal: it refuses what Marshal would not print.
func parseLicence(message []byte) (Licence, error) {
	d, err := armor.Parse(message, licenceTitle)
	if err != nil {
		return Licence{}, err
	}
	get := func(name string) string { v, _ := d.Get(name); return v }
	l := Licence{Type: Type(get("Type")), ESN: get("ESN"), Serial: get("Serial")}
	if err := l.ParseValue(get("Value")); err != nil {
		return Licence{}, err
	}
	if l.Issued, err = time.Parse(time.RFC3339, get("Issued")); err != nil {
		return Licence{}, errkind.Errorf(errkind.Invalid, "licence: Issued %q is no date", get("Issued"))
	}
	again, err := l.Marshal()
	if err != nil {
		return Licence{}, err
	}
	if string(again) != string(message) {
		return Licence{}, errkind.Errorf(errkind.Invalid, "the licence is not in its canonical form")
	}
	return l, nil
}

// Sign returns the licence file.
func (l *Licence) Sign(root ssh.Signer) ([]byte, error) {
	message, err := l.Marshal()
	if err != nil {
		return nil, err
	}
	return armor.Sign(message, root, Namespace)
}

// ReadLicence reads a licence file, checks that root signed it and that it is
// for the unit with the given ESN.
func ReadLicence(file []byte, root ssh.PublicKey, esn string) (Licence, error) {
	message, err := armor.Verify(file, root, Namespace)
	if err != nil {
		return Licence{}, fmt.Errorf("licence: %w", err)
	}
	l, err := parseLicence(message)
	if err != nil {
		return Licence{}, err
	}
	if l.ESN != esn {
		return Licence{}, errkind.Errorf(errkind.Refused, "the licence is for the unit %s; this one is %s", l.ESN, esn)
	}
	return l, nil
}

// InspectLicence reads a licence file without checking who signed it.
func InspectLicence(file []byte) (Licence, error) {
	message, _, err := armor.Split(file)
	if err != nil {
		return Licence{}, err
	}
	return parseLicence(message)
}

// CheckESN checks the form of an electronic serial number.
func CheckESN(esn string) error {
	if ok, _ := regexp.MatchString(`^[0-9A-F]{4}(-[0-9A-F]{4}){2}$`, esn); !ok {
		return errkind.Errorf(errkind.Invalid, "ESN %q: wanted is XXXX-XXXX-XXXX with digits and A to F", esn)
	}
	return nil
}
