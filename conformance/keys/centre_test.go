package keys_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
)

// ownCentre is a KMC in the test's hands: it wraps whatever a test wants.
type ownCentre struct {
	t      testing.TB
	name   string
	static *ecdh.PrivateKey
	module *ecdh.PublicKey
	keys   keyload.SessionKeys
}

const ownSession = "0A0B"

func (p *platform) newOwnCentre(name string) *ownCentre {
	p.t.Helper()
	file := p.Mail("own-module.pub")
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	p.must(rig.Tenant, "ptokenadmin", "sm", "public-key", "--out", file)
	public, err := keyload.ParseSMPublicKeyText(read(p.t, file))
	if err != nil {
		p.t.Fatal(err)
	}
	module, err := keyload.ParsePoint(public.Point)
	if err != nil {
		p.t.Fatal(err)
	}
	static, err := keyload.NewPrivateKey(rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return &ownCentre{t: p.t, name: name, static: static, module: module}
}

// record is the centre's public key with changed fields.
func (k *ownCentre) record(change ...string) string {
	now := time.Now()
	rec := keyload.KMCPublicKey{KMC: k.name, KPN: 1, Activates: now.AddDate(0, 0, -1), Expires: now.AddDate(1, 0, 0), Curve: "P384",
		Point: k.static.PublicKey().Bytes()}.Record()
	return changed(rec, change...)
}

// changed is a record with other values of some fields, "" for none, and its CRC.
func changed(rec keyload.Record, change ...string) string {
	var pairs []string
	for _, f := range rec.Fields {
		if i := slices.Index(change, f.Tag); i >= 0 && i%2 == 0 {
			f.Value = change[i+1]
		}
		pairs = append(pairs, f.Tag, f.Value)
	}
	return keyload.NewRecord(rec.Type, pairs...).String()
}

// answer is a VKLOADRSP to a request, announcing count keys.
func (k *ownCentre) answer(request string, count int) keyload.Record {
	k.t.Helper()
	q, err := keyload.ParseRequestText(request)
	if err != nil {
		k.t.Fatal(err)
	}
	theirs, err := keyload.ParsePoint(q.QEU)
	if err != nil {
		k.t.Fatal(err)
	}
	ephemeral, err := keyload.NewPrivateKey(rand.Reader)
	if err != nil {
		k.t.Fatal(err)
	}
	a := keyload.Agreement{Request: q, QEV: ephemeral.PublicKey(), Static: k.static, Ephem: ephemeral, Peer: k.module, PeerEphem: theirs}
	if k.keys, err = a.Keys(); err != nil {
		k.t.Fatal(err)
	}
	r := keyload.Response{ModuleID: q.ModuleID, SPN: q.SPN, KMC: q.KMC, KPN: q.KPN, TVP: q.TVP, Scheme: keyload.Scheme,
		KID: ownSession, Count: strconv.Itoa(count), QEV: ephemeral.PublicKey().Bytes()}
	if r.MAC, err = a.ConfirmationTag(k.keys.Confirm, r.Record()); err != nil {
		k.t.Fatal(err)
	}
	return r.Record()
}

// vendingKey is the key that the test gives to a supply group.
func vendingKey(t testing.TB, sgc, size int, algorithm sts.DKGA) ([]byte, *sts.VendingKey) {
	t.Helper()
	vk := make([]byte, size)
	for i := range vk {
		vk[i] = byte(sgc + 2*i)
	}
	key, err := sts.NewVendingKey(algorithm, vk)
	if err != nil {
		t.Fatal(err)
	}
	return vk, key
}

// forged is a credit token that no module issues: under a default key.
func forged(t testing.TB, pan string, sgc int) string {
	t.Helper()
	number, err := sts.ParsePAN(pan)
	if err != nil {
		t.Fatal(err)
	}
	_, key := vendingKey(t, sgc, 20, sts.DKGA04)
	of, err := key.DecoderKey(sts.KeyParams{PAN: number, EA: sts.EA11, KT: sts.DDTK, SGC: sts.SGC(sgc), KRN: 1, TI: 1, BaseDate: 2014})
	if err != nil {
		t.Fatal(err)
	}
	unique, err := sts.NewDecoderKey(sts.EA11, sts.DUTK, of.AppendBytes(nil)) // a forger ignores the key type
	if err != nil {
		t.Fatal(err)
	}
	apdu, err := sts.Credit{TID: 1 << 20, Amount: 1}.APDU()
	if err != nil {
		t.Fatal(err)
	}
	token, err := sts.NewEngine(nil, sts.TableDriven).Encrypt(unique, apdu)
	if err != nil {
		t.Fatal(err)
	}
	return token.String()
}

// wrap is the record of a vending key that is in force, with changes.
func (k *ownCentre) wrap(sgc int, change func(*keyload.KeyAttributes)) keyload.Record {
	k.t.Helper()
	now := time.Now()
	a := keyload.KeyAttributes{ACT: now.AddDate(0, 0, -1), BDT: 2014, DKG: 4, IUT: now.AddDate(0, 1, 0), KEN: 255, KRN: 1, KTC: "VUDK",
		SGC: sgc, SBM: 0xFFFF, ULM: keyload.Unlimited, CLM: keyload.Unlimited}
	if change != nil {
		change(&a)
	}
	size, algorithm := 20, sts.DKGA04
	if a.DKG != 4 {
		size, algorithm = 8, sts.DKGA02
	}
	vk, key := vendingKey(k.t, sgc, size, algorithm)
	if a.KCV == "" {
		a.KCV = key.KCV().String()
	}
	rec, err := keyload.WrapVendingKey(k.keys, ownSession, a, vk)
	if err != nil {
		k.t.Fatal(err)
	}
	return rec
}
