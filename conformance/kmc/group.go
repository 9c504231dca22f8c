package kmc

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// DefaultRefresh is how many days a key is issued for where nothing else is said.
const DefaultRefresh = 90

// Group is a vending key of a supply group with what its owner set for it.
type Group struct {
	SGC     int       `json:"sgc"`
	KRN     int       `json:"krn"`
	KTC     string    `json:"ktc"`
	BDT     int       `json:"bdt"`
	DKG     int       `json:"dkg"`
	KEN     int       `json:"ken"`
	CLU     int       `json:"clu"`
	SBM     uint16    `json:"sbm"`
	ULM     uint32    `json:"ulm"`
	CLM     uint32    `json:"clm"`
	ACT     time.Time `json:"act"`
	EXP     time.Time `json:"exp"`           // last day of issue; zero for none
	IUT     time.Time `json:"iut"`           // fixed; zero to use Refresh
	Refresh int       `json:"refreshPeriod"` // days
	SGN     string    `json:"sgn"`
	Key     string    `json:"key"` // hex
}

// Name identifies the key within the KMC.
func (g Group) Name() string { return fmt.Sprintf("%06d/%d/%d", g.SGC, g.KRN, g.BDT) }

// AddGroup adds a vending key. With an empty Key it is drawn at random.
func (k *KMC) AddGroup(g Group) (Group, error) {
	g, err := k.add(g)
	if err != nil {
		return Group{}, err
	}
	return g, k.save()
}

// AddGroups adds many vending keys at once, all or none.
func (k *KMC) AddGroups(groups []Group) error {
	before := slices.Clone(k.state.Groups)
	for _, g := range groups {
		if _, err := k.add(g); err != nil {
			k.state.Groups = before
			return err
		}
	}
	return k.save()
}

func (k *KMC) add(g Group) (Group, error) {
	if slices.ContainsFunc(k.state.Groups, func(o Group) bool { return o.Name() == g.Name() }) {
		return Group{}, errkind.Errorf(errkind.Refused, "SGC %06d KRN %d with base date %d exists already", g.SGC, g.KRN, g.BDT)
	}
	if g.Key == "" {
		raw := make([]byte, keySize(g.DKG))
		if _, err := io.ReadFull(k.rand, raw); err != nil {
			return Group{}, fmt.Errorf("draw a vending key: %w", err)
		}
		if len(raw) == 8 {
			odd := sts.OddParity([8]byte(raw))
			raw = odd[:]
		}
		g.Key = strings.ToUpper(hex.EncodeToString(raw))
	}
	if err := g.check(); err != nil {
		return Group{}, err
	}
	k.state.Groups = append(k.state.Groups, g)
	slices.SortFunc(k.state.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.SGC, b.SGC), cmp.Compare(a.KRN, b.KRN), cmp.Compare(a.BDT, b.BDT))
	})
	return g, nil
}

func keySize(dkg int) int {
	if dkg == 4 {
		return 20
	}
	return 8
}

// check refuses what the module would refuse, where the owner can still correct it.
func (g Group) check() error {
	bad := func(format string, args ...any) error {
		return errkind.Errorf(errkind.Invalid, "SGC %06d KRN %d: %s", g.SGC, g.KRN, fmt.Sprintf(format, args...))
	}
	switch {
	case g.SGC < 0 || g.SGC > 999999:
		return bad("the supply group code is not 0 to 999999")
	case g.KRN < 1 || g.KRN > 9:
		return bad("the key revision number is not 1 to 9")
	case g.KTC != "VDDK" && g.KTC != "VUDK" && g.KTC != "VCDK":
		return bad("key type %q is not VDDK, VUDK or VCDK", g.KTC)
	case g.BDT != 1993 && g.BDT != 2014 && g.BDT != 2035:
		return bad("base date %d is not 1993, 2014 or 2035", g.BDT)
	case g.DKG != 1 && g.DKG != 2 && g.DKG != 4:
		return bad("decoder-key generation algorithm %02d is not 01, 02 or 04", g.DKG)
	case g.KEN < 0 || g.KEN > 255:
		return bad("the key expiry number is not 0 to 255")
	case g.CLU < 0 || g.CLU > 9:
		return bad("the cluster is not 0 to 9")
	case len(g.SGN) > 40 || keyload.Printable(g.SGN) != g.SGN:
		return bad("the supply group name has more than 40 characters, or some that are not printable")
	case g.IUT.IsZero() && g.Refresh < 1:
		return bad("it needs a refresh period of at least a day, or a date until which it is issued")
	}
	raw, err := hex.DecodeString(g.Key)
	if err != nil || len(raw) != keySize(g.DKG) {
		return bad("a key for algorithm %02d is %d hex digits", g.DKG, 2*keySize(g.DKG))
	}
	_, err = g.KCV()
	return err
}

// KCV returns the key's check value.
func (g Group) KCV() (string, error) {
	raw, err := hex.DecodeString(g.Key)
	if err != nil {
		return "", errkind.Errorf(errkind.Integrity, "the key of SGC %06d KRN %d is damaged", g.SGC, g.KRN)
	}
	dkg := sts.DKGA(g.DKG)
	if g.DKG == 1 {
		dkg = sts.DKGA02 // the same 64-bit keys
	}
	vk, err := sts.NewVendingKey(dkg, raw)
	if err != nil {
		return "", errkind.Errorf(errkind.Invalid, "the key of SGC %06d KRN %d: %w", g.SGC, g.KRN, err)
	}
	return vk.KCV().String(), nil
}

// Groups returns the vending keys, by supply group, revision and base date.
func (k *KMC) Groups() []Group { return slices.Clone(k.state.Groups) }

// Find returns the vending key that sgc and krn name; bdt may be 0 where they
// name only one.
func (k *KMC) Find(sgc, krn, bdt int) (Group, error) {
	i, err := k.index(sgc, krn, bdt)
	if err != nil {
		return Group{}, err
	}
	return k.state.Groups[i], nil
}

func (k *KMC) index(sgc, krn, bdt int) (int, error) {
	found := -1
	for i, g := range k.state.Groups {
		if g.SGC != sgc || g.KRN != krn || bdt != 0 && g.BDT != bdt {
			continue
		}
		if found >= 0 {
			return 0, errkind.Errorf(errkind.Invalid, "SGC %06d KRN %d exists with several base dates; name one with --bdt", sgc, krn)
		}
		found = i
	}
	if found < 0 {
		return 0, errkind.Errorf(errkind.NotFound, "KMC %s has no SGC %06d KRN %d", k.state.Name, sgc, krn)
	}
	return found, nil
}

// Change replaces the attributes of a key that its owner may change: its
// limits, dates, refresh period, expiry number, bitmap and name. Modules get
// them with their next key load file.
func (k *KMC) Change(sgc, krn, bdt int, change func(*Group)) (Group, error) {
	i, err := k.index(sgc, krn, bdt)
	if err != nil {
		return Group{}, err
	}
	old := k.state.Groups[i]
	g := old
	change(&g)
	g.SGC, g.KRN, g.BDT, g.KTC, g.DKG, g.Key = old.SGC, old.KRN, old.BDT, old.KTC, old.DKG, old.Key
	if err := g.check(); err != nil {
		return Group{}, err
	}
	k.state.Groups[i] = g
	return g, k.save()
}

// attributes are what a key load file made at now says about the key.
func (g Group) attributes(now time.Time) (keyload.KeyAttributes, error) {
	kcv, err := g.KCV()
	if err != nil {
		return keyload.KeyAttributes{}, err
	}
	iut := g.IUT
	if iut.IsZero() {
		iut = now.UTC().Truncate(time.Second).AddDate(0, 0, g.Refresh)
	}
	if end := g.EXP.AddDate(0, 0, 1).Add(-time.Second); !g.EXP.IsZero() && iut.After(end) {
		iut = end
	}
	return keyload.KeyAttributes{
		ACT: g.ACT, BDT: g.BDT, CLM: g.CLM, CLU: g.CLU, DKG: g.DKG, EXP: g.EXP, IUT: iut, KCV: kcv,
		KEN: g.KEN, KRN: g.KRN, KTC: g.KTC, SBM: g.SBM, SGC: g.SGC, SGN: g.SGN, ULM: g.ULM,
	}, nil
}
