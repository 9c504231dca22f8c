package kmc

import (
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Authorise records a key use authorisation: the KMC may issue the key to the module.
func (k *KMC) Authorise(module string, sgc, krn, bdt int) error {
	g, err := k.Find(sgc, krn, bdt)
	if err != nil {
		return err
	}
	return k.authorise(module, []Group{g})
}

// AuthoriseAll authorises every key that the KMC has now, and returns how many there are.
func (k *KMC) AuthoriseAll(module string) (int, error) {
	return len(k.state.Groups), k.authorise(module, k.state.Groups)
}

func (k *KMC) authorise(module string, groups []Group) error {
	if _, err := k.module(module); err != nil {
		return err
	}
	names := k.state.KUA[module]
	for _, g := range groups {
		names = append(names, g.Name())
	}
	slices.Sort(names)
	k.state.KUA[module] = slices.Compact(names)
	return k.save()
}

// Revoke withdraws a key use authorisation.
func (k *KMC) Revoke(module string, sgc, krn, bdt int) error {
	g, err := k.Find(sgc, krn, bdt)
	if err != nil {
		return err
	}
	names := k.state.KUA[module]
	i, found := slices.BinarySearch(names, g.Name())
	if !found {
		return errkind.Errorf(errkind.NotFound, "SGC %06d KRN %d is not authorised for module %s", sgc, krn, module)
	}
	k.state.KUA[module] = slices.Delete(names, i, i+1)
	return k.save()
}

// Authorised returns the keys that a module may have.
func (k *KMC) Authorised(module string) []Group {
	names := k.state.KUA[module]
	var out []Group
	for _, g := range k.state.Groups {
		if _, found := slices.BinarySearch(names, g.Name()); found {
			out = append(out, g)
		}
	}
	return out
}

// Answer is a key load file and what was left out of it.
type Answer struct {
	Module   string
	Issued   []keyload.KeyAttributes
	Withheld []string // keys that are past their last day of issue
	Text     string
}

// Answer answers a VKLOADREQ with the module's authorised keys, wrapped.
func (k *KMC) Answer(requestText string, now time.Time) (Answer, error) {
	request, err := keyload.ParseRequestText(requestText)
	if err != nil {
		return Answer{}, err
	}
	agreement, err := k.agree(request, now)
	if err != nil {
		return Answer{}, err
	}
	keys, err := agreement.Keys()
	if err != nil {
		return Answer{}, errkind.Errorf(errkind.Invalid, "VKLOADREQ: %w", err)
	}
	defer keys.Zeroise()

	var kid [2]byte
	if _, err := io.ReadFull(k.rand, kid[:]); err != nil {
		return Answer{}, fmt.Errorf("draw a key-load id: %w", err)
	}
	session := strings.ToUpper(hex.EncodeToString(kid[:]))
	out := Answer{Module: request.ModuleID}
	file := keyload.KLF{KMC: k.state.Name, ModuleID: request.ModuleID, TVP: request.TVP}
	for _, g := range k.Authorised(request.ModuleID) {
		if !g.EXP.IsZero() && !now.Before(g.EXP.AddDate(0, 0, 1)) {
			out.Withheld = append(out.Withheld, fmt.Sprintf("%s: issued until %s", keyload.KeyName(g.SGC, g.KRN), g.EXP.Format(time.DateOnly)))
			continue
		}
		rec, attr, err := g.wrap(keys, session, now)
		if err != nil {
			return Answer{}, err
		}
		file.Keys = append(file.Keys, rec)
		out.Issued = append(out.Issued, attr)
	}
	if len(file.Keys) == 0 {
		return Answer{}, errkind.Errorf(errkind.Refused, "KMC %s has no key to issue to module %s; authorise some with 'kmc authorise'", k.state.Name, request.ModuleID)
	}
	if len(file.Keys) > keyload.MaxKeys {
		return Answer{}, errkind.Errorf(errkind.Limit, "a key load file carries at most %d keys, not %d", keyload.MaxKeys, len(file.Keys))
	}
	response := keyload.Response{
		ModuleID: request.ModuleID, SPN: request.SPN, KMC: request.KMC, KPN: request.KPN, TVP: request.TVP,
		Scheme: keyload.Scheme, KID: session, Count: strconv.Itoa(len(file.Keys)), QEV: agreement.QEV.Bytes(),
	}
	if response.MAC, err = agreement.ConfirmationTag(keys.Confirm, response.Record()); err != nil {
		return Answer{}, err
	}
	file.Response = response.Record().String()
	out.Text = file.Text()
	return out, nil
}

// agree is the KMC's half of the key agreement.
func (k *KMC) agree(request keyload.Request, now time.Time) (keyload.Agreement, error) {
	if request.KMC != k.state.Name {
		return keyload.Agreement{}, errkind.Errorf(errkind.Refused, "the VKLOADREQ is for KMC %s; this is %s", request.KMC, k.state.Name)
	}
	module, err := k.module(request.ModuleID)
	if err != nil {
		return keyload.Agreement{}, err
	}
	if module.SPN != request.SPN {
		return keyload.Agreement{}, errkind.Errorf(errkind.Refused, "the VKLOADREQ names key %d of module %s; the KMC knows key %d", request.SPN, module.ModuleID, module.SPN)
	}
	i := slices.IndexFunc(k.state.Keys, func(p keyPair) bool { return p.KPN == request.KPN })
	if i < 0 {
		return keyload.Agreement{}, errkind.Errorf(errkind.Refused, "the VKLOADREQ was made for key %d of KMC %s, which it does not have", request.KPN, k.state.Name)
	}
	pair := k.state.Keys[i]
	if now.Before(pair.Activates) || !now.Before(pair.Expires.AddDate(0, 0, 1)) {
		return keyload.Agreement{}, errkind.Errorf(errkind.Refused, "key %d of KMC %s is valid from %s to %s; it is %s", pair.KPN, k.state.Name,
			pair.Activates.Format(time.DateOnly), pair.Expires.Format(time.DateOnly), now.UTC().Format(time.DateTime))
	}
	static, err := pair.private()
	if err != nil {
		return keyload.Agreement{}, err
	}
	peer, err := keyload.ParsePoint(module.Point)
	if err != nil {
		return keyload.Agreement{}, errkind.Errorf(errkind.Invalid, "the public key of module %s: %w", module.ModuleID, err)
	}
	peerEphem, err := keyload.ParsePoint(request.QEU)
	if err != nil {
		return keyload.Agreement{}, errkind.Errorf(errkind.Invalid, "VKLOADREQ: the ephemeral key is not a point of the curve")
	}
	ephem, err := keyload.NewPrivateKey(k.rand)
	if err != nil {
		return keyload.Agreement{}, err
	}
	return keyload.Agreement{Request: request, QEV: ephem.PublicKey(), Static: static, Ephem: ephem, Peer: peer, PeerEphem: peerEphem}, nil
}

func (g Group) wrap(keys keyload.SessionKeys, kid string, now time.Time) (keyload.Record, keyload.KeyAttributes, error) {
	attr, err := g.attributes(now)
	if err != nil {
		return keyload.Record{}, attr, err
	}
	vk, err := hex.DecodeString(g.Key)
	if err != nil {
		return keyload.Record{}, attr, errkind.Errorf(errkind.Integrity, "the key of %s is damaged", keyload.KeyName(g.SGC, g.KRN))
	}
	defer clear(vk)
	rec, err := keyload.WrapVendingKey(keys, kid, attr, vk)
	return rec, attr, err
}
