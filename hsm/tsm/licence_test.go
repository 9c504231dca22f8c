package tsm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// licenceFor makes a licence for the rig's module as it is, and the key to verify it.
func licenceFor(t *testing.T, r *rig, n uint32) (string, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return r.licence(key, n, time.Time{}), key
}

func (r *rig) licence(key *ecdsa.PrivateKey, n uint32, until time.Time) string {
	r.t.Helper()
	l, err := r.m.Counter(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := keyload.TransactionLicence{ModuleID: moduleID, Nonce: l.Nonce, Transactions: n, InhibitVend: until}.SignedText(key)
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

func TestTransactionLicence(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *tsm.Config) { c.InstructionKey = &key.PublicKey }).with(group(123456))
	ctx := context.Background()
	if l, err := r.m.Counter(ctx); err != nil || l.Loaded || l.Left != tsm.Unlimited || len(l.Nonce) != 8 {
		t.Errorf("a new module's licence: %+v, %v", l, err)
	}
	if _, err := r.credit(r.creditInput()); err != nil {
		t.Errorf("a module without a licence does not vend: %v", err)
	}

	// Inside an e-mail, and only once.
	mail := "From: maker\r\n\r\n> Your licence:\r\n" + strings.ReplaceAll(r.licence(key, 2, start.Add(time.Hour)), "\n", "\r\n") + "\r\nKind regards\r\n"
	l, err := r.m.LoadLicence(ctx, mail)
	if err != nil || !l.Loaded || l.Left != 2 || !l.InhibitVend.Equal(start.Add(time.Hour)) {
		t.Fatalf("licence %+v, %v", l, err)
	}
	_, err = r.m.LoadLicence(ctx, mail)
	want(t, err, tsm.CodeInvalidInstruction)

	in := tsm.KeyChangeInput{RegisterOld: 1, RegisterNew: 1, PAN: pan11, TIOld: 1, EA: 11, TCT: 2, TINew: 2, NumTokens: 4}
	if _, err := r.keyChange(in); err != nil { // one command, one transaction
		t.Fatal(err)
	}
	management := tsm.ManagementInput{Register: 1, PAN: pan11, TI: 1, EA: 11, TCT: 2, SubClass: 1, TID: r.tid(2014)}
	if _, err := r.management(management); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"credit": second(r.credit(r.creditInput())), "management": second(r.management(management)), "key change": second(r.keyChange(in)),
	} {
		if tsm.CodeOf(err) != tsm.CodeLicenceExhausted {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, _ := r.attributes(1); a.VND || !strings.HasPrefix(a.Reason, "no transactions are left") {
		t.Errorf("VND %v, %q", a.VND, a.Reason)
	}
	if l, err := r.m.LoadLicence(ctx, r.licence(key, 3, start.Add(time.Hour))); err != nil || l.Left != 3 {
		t.Errorf("licence %+v, %v", l, err)
	}
	if l, err := r.m.LoadLicence(ctx, r.licence(key, 4, start.Add(time.Hour))); err != nil || l.Left != 7 {
		t.Errorf("licence %+v, %v", l, err)
	}
	r.clock.Advance(time.Hour)
	if _, err := r.credit(r.creditInput()); err != nil {
		t.Errorf("at the inhibit date: %v", err)
	}
	r.clock.Advance(time.Second)
	_, err = r.credit(r.creditInput())
	want(t, err, tsm.CodeVendInhibited)
	if l, err := r.m.LoadLicence(ctx, r.licence(key, tsm.Unlimited, time.Time{})); err != nil || l.Left != tsm.Unlimited {
		t.Errorf("licence %+v, %v", l, err)
	}
	for range 3 {
		if _, err := r.credit(r.creditInput()); err != nil {
			t.Error(err)
		}
	}
	if l, err := r.m.Counter(ctx); err != nil || l.Left != tsm.Unlimited {
		t.Errorf("an uncounted licence is counted: %+v, %v", l, err)
	}
}

func TestInstructionRefusals(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *tsm.Config) { c.InstructionKey = &key.PublicKey })
	ctx := context.Background()
	record, signature, err := keyload.ParseLicenceText(r.licence(key, 5, time.Time{}))
	if err != nil {
		t.Fatal(err)
	}
	resigned := func(record string) (string, []byte) {
		sig, err := keyload.SignInstruction(key, record)
		if err != nil {
			t.Fatal(err)
		}
		return record, sig
	}
	do := func(record string, signature []byte) error { return r.m.Instruction(ctx, record, signature) }
	want(t, do(record, signature[:95]), tsm.CodeFormatError)
	want(t, do(record+"x", signature), tsm.CodeInvalidInstruction)
	want(t, do(set(t, record, "CNT", "6"), signature), tsm.CodeInvalidInstruction)
	want(t, do(resigned(set(t, record, "SMI", "11111111"))), tsm.CodeInvalidModuleID)
	want(t, do(resigned(set(t, record, "NON", "0011223344556677"))), tsm.CodeInvalidInstruction)
	want(t, do(resigned(set(t, record, "IVD", "20261301000000"))), tsm.CodeInvalidInstruction)
	want(t, do(resigned(retype(t, record, "CI.OTHER.1"))), tsm.CodeInvalidInstruction)
	_, err = r.m.LoadLicence(ctx, "no licence at all")
	want(t, err, tsm.CodeInvalidInstruction)
	r.m = r.open(r.vault) // without a key to verify with
	want(t, do(record, signature), tsm.CodeInvalidInstruction)
	r.m = r.open(r.vault, func(c *tsm.Config) { c.InstructionKey = &key.PublicKey })
	want(t, do(record, signature), tsm.CodeOK)
}

// otherTables is a well-formed set that nobody uses.
const otherTables = `{"sub0":[1,0,3,2,5,4,7,6,9,8,11,10,13,12,15,14],"sub1":[1,0,3,2,5,4,7,6,9,8,11,10,13,12,15,14],` +
	`"perm":[63,62,61,60,59,58,57,56,55,54,53,52,51,50,49,48,47,46,45,44,43,42,41,40,39,38,37,36,35,34,33,32,` +
	`31,30,29,28,27,26,25,24,23,22,21,20,19,18,17,16,15,14,13,12,11,10,9,8,7,6,5,4,3,2,1,0]}`

func TestSTATables(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(c *tsm.Config) { c.TestMode = true }).with(group(123456, func(g *kmc.Group) { g.Key = complianceKey }))
	ctx := context.Background()
	in := r.creditInput()
	in.EA = 7
	sample, err := r.credit(in)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"no JSON":        "",
		"not inverse":    strings.Replace(otherTables, "[1,0,3,2", "[0,1,3,2", 1),
		"no permutation": strings.Replace(otherTables, "63,62", "63,63", 1),
	} {
		if err := r.m.LoadSTATables(ctx, "bad", []byte(bad)); tsm.CodeOf(err) != tsm.CodeFormatError {
			t.Errorf("%s: %v", name, err)
		}
	}
	want(t, r.m.LoadSTATables(ctx, "iec-sample", []byte(otherTables)), tsm.CodeFormatError)
	want(t, r.m.LoadSTATables(ctx, "", []byte(otherTables)), tsm.CodeFormatError)
	if again, err := r.credit(in); err != nil || again.Dec != sample.Dec {
		t.Errorf("a refused set changed the tokens: %v", err)
	}
	if err := r.m.LoadSTATables(ctx, "other", []byte(otherTables)); err != nil {
		t.Fatal(err)
	}
	tables, err := sts.ParseTables("other", []byte(otherTables))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*tsm.Module{r.m, r.open(r.vault, func(c *tsm.Config) { c.TestMode = true })} {
		r.m = m
		out, err := r.credit(in)
		if err != nil || out.Dec == sample.Dec {
			t.Errorf("the new tables are not in use: %v", err)
		}
		st, err := m.Status(ctx)
		if err != nil || st.STAName != "other" || !strings.EqualFold(st.STASHA256, hexOf(tables.Fingerprint())) {
			t.Errorf("status %s %s, %v", st.STAName, st.STASHA256, err)
		}
	}
}

func hexOf(b [32]byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, c := range b {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

// The identity is made once and names the module, its maker and its key.
func TestIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.m.IDSM()
	cut := strings.LastIndexByte(id, ':') + 1
	if !strings.HasPrefix(id, "SMID.1:Tesserae:89051616:20260301T100000Z:") || len(id) != len("SMID.1:Tesserae:89051616:20260301T100000Z:")+16+1+4 {
		t.Errorf("idSm %s", id)
	}
	if got := hexOf16(keyload.CRC16([]byte(id[:cut]))); got != id[cut:] {
		t.Errorf("CRC %s, want %s", id[cut:], got)
	}
	r.clock.Advance(time.Hour)
	if again := r.open(r.vault, func(c *tsm.Config) { c.Created = time.Time{} }); again.IDSM() != id || again.PublicKeyRecord() != r.m.PublicKeyRecord() {
		t.Error("the identity changed")
	}
	st, err := r.m.Status(context.Background())
	if err != nil || st.PublicKeyID != "SMID;SMI89051616;SPN1" || st.FirmwareID != "STS64V10" || st.Registers != 999 || len(st.FirmwareHash) != 8 || st.STAName != "iec-sample" {
		t.Errorf("status %+v, %v", st, err)
	}
}

func hexOf16(v uint16) string {
	const digits = "0123456789ABCDEF"
	return string([]byte{digits[v>>12], digits[v>>8&15], digits[v>>4&15], digits[v&15]})
}

func TestOpenRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := tsm.Config{Vault: r.vault, ModuleID: moduleID, Clock: r.clock}
	for name, change := range map[string]func(*tsm.Config){
		"no vault":       func(c *tsm.Config) { c.Vault = nil },
		"no clock":       func(c *tsm.Config) { c.Clock = nil },
		"module id":      func(c *tsm.Config) { c.ModuleID = "1234567x" },
		"registers":      func(c *tsm.Config) { c.Registers = 1000 },
		"firmware":       func(c *tsm.Config) { c.FirmwareID = "STS05V10" },
		"no randomness":  func(c *tsm.Config) { c.Vault, c.Rand = newVault(), strings.NewReader("") },
		"damaged memory": func(c *tsm.Config) { v := newVault(); v.data["id"] = []byte("{"); c.Vault = v },
	} {
		c := good
		change(&c)
		if _, err := tsm.Open(context.Background(), c); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// Every code has a name and a kind, and an unknown one neither lies nor panics.
func TestCodes(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range tsm.Codes() {
		id := c.Identifier()
		if len(c) != 2 || id == "" || id == "UNKNOWN_ERROR" || seen[id] {
			t.Errorf("code %q is named %q", c, id)
		}
		seen[id] = true
	}
	if tsm.Code("04").Identifier() != "UNKNOWN_ERROR" {
		t.Error("an unknown code has a name")
	}
	if tsm.CodeOf(context.Canceled) != tsm.CodeDeviceFailure || tsm.CodeOf(nil) != tsm.CodeOK {
		t.Error("CodeOf")
	}
}

// A key that is found when it is needed is as good as one given; one that cannot
// be found is no licence to obey anybody.
func TestInstructionKeyIsFoundLate(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		found *ecdsa.PublicKey
		err   error
		ok    bool
	}{{"found", &key.PublicKey, nil, true}, {"none", nil, nil, false}, {"lost", nil, errors.New("the warrant is torn"), false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			r := newRig(t, func(cfg *tsm.Config) {
				cfg.FindInstructionKey = func() (*ecdsa.PublicKey, error) { asked++; return c.found, c.err }
			})
			if asked > 0 {
				t.Error("it was asked for at the start")
			}
			after, err := r.m.LoadLicence(t.Context(), r.licence(key, 7, time.Time{}))
			if (err == nil) != c.ok || c.ok && after.Left != 7 {
				t.Errorf("%+v, %v", after, err)
			}
			if c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("%v does not say why", err)
			}
		})
	}
}
