package keys_test

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// licence has the maker license the module for its present nonce; the licence
// comes inside an e-mail.
func (p *platform) licence(name, maker string, nonce string, flags ...string) string {
	p.t.Helper()
	file := p.Mail(name)
	p.must(rig.Maker, "vendor", append([]string{"transaction-licence", "--dir", p.Path("maker", maker), "--module-id", p.module(),
		"--nonce", nonce, "--out", file}, flags...)...)
	mail := "From: maker\r\nSubject: your licence\r\n\r\nDear tenant,\r\n" + strings.ReplaceAll(read(p.t, file), "\n", "\r\n") + "\r\nKind regards\r\n"
	if err := os.WriteFile(file, []byte(mail), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return file
}

// apiError is a server's exception.
func apiError(err error) (code, text string) {
	var e *prismtoken1.ApiException
	if errors.As(err, &e) {
		return e.ECode, e.EMsgEn
	}
	return "", ""
}

// Transaction licences count, end vending at zero and at their date, work once
// and only by the maker's word, by all three ways to load them.
func TestTransactionLicence(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, []rig.SupplyGroup{{SGC: "123456", DKG: "04", Name: "Only", Flags: []string{"--ulm", "1000"}}})
	p.load()
	tcp := dialTCP(t, p.endpoint("smapi"))
	left := func() (n uint64, nonce string) {
		t.Helper()
		v := tcp.must(4, "CQ")
		n, err := strconv.ParseUint(v[0], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return n, v[2]
	}
	if n, _ := left(); n != 1<<32-1 {
		t.Errorf("without a licence %d are left", n)
	}
	accounts, err := p.Accounts("123456", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.vcm.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	vend := func() error {
		t.Helper()
		tokens, err := c.API.IssueCreditToken(t.Context(), vending.MessageID(), c.Token, accounts[0].Config, 0, 10, 0, 0)
		if err != nil {
			return err
		}
		if r, err := accounts[0].Meter.Enter(tokens[0].TokenDec, time.Now()); err != nil || !r.Accepted {
			t.Errorf("the meter says %s, %v", r, err)
		}
		return nil
	}
	raw := func() string {
		t.Helper()
		status, _ := tcp.call("VC", credit(1, pan18(t, accounts[0].Config.Drn), 1, tidAt(time.Now()))...)
		return status
	}
	ends := func(why, identifier, status string) {
		t.Helper()
		err := vend()
		if code, text := apiError(err); code != "ESm" || !strings.Contains(text, identifier) {
			t.Errorf("%s: vending ends with %q %q", why, code, text)
		}
		if got := raw(); got != status {
			t.Errorf("%s: SM?VC ends with %s", why, got)
		}
	}

	// By the tool: three transactions.
	_, nonce := left()
	p.must(rig.Maker, "vendor", "root", "--dir", p.Path("maker", "another"))
	p.refused(exitUsage, "not signed by this module's maker", "license", "load", p.licence("forged.txt", "another", nonce, "--transactions", "9"))
	first := p.licence("first.txt", "keys", nonce, "--transactions", "3")
	if said := p.tenant("license", "load", first); !strings.Contains(said, "3 transactions left") {
		t.Errorf("%q", said)
	}
	p.refused(exitUsage, "was used before", "license", "load", first)
	for want := uint64(2); ; want-- {
		if err := vend(); err != nil {
			t.Fatal(err)
		}
		if n, _ := left(); n != want {
			t.Fatalf("%d are left, not %d", n, want)
		}
		if want == 0 {
			break
		}
	}
	ends("at zero", "TRANSACTION_LICENCE_EXHAUSTED", "34")
	if info, alerts := p.status(); info["TxCounter"] != "0" || !strings.Contains(strings.Join(alerts, "\n"), "PToken.TransactionsLow") {
		t.Errorf("status %s, %v", info["TxCounter"], alerts)
	}

	// By the token service, as a user who may: until a date that comes soon.
	_, nonce = left()
	until := time.Now().Add(4 * time.Second)
	text := read(t, p.licence("second.txt", "keys", nonce, "--transactions", "100", "--inhibit-vend", until.UTC().Format(time.RFC3339)))
	if _, err := c.API.LoadTransactionLicense(t.Context(), vending.MessageID(), c.Token, text); vending.ErrorCode(err) != "EAuthentication.Permission" {
		t.Errorf("a user who may only issue: %v", err)
	}
	p.tenant("user", "change", "--role", "ptoken-api", "--role", "ptoken-issue-any", "--role", "ptoken-operator", "vending")
	if c, err = p.vcm.Client(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if ok, err := c.API.LoadTransactionLicense(t.Context(), vending.MessageID(), c.Token, text); err != nil || !ok {
		t.Fatalf("load: %v, %v", ok, err)
	}
	if _, err := c.API.LoadTransactionLicense(t.Context(), vending.MessageID(), c.Token, text); vending.ErrorCode(err) != "ESm" {
		t.Errorf("the same again: %v", err)
	}
	if err := vend(); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Until(until.Add(time.Second)))
	ends("at the date", "VENDING_INHIBITED", "35")

	// By the low-level API.
	_, nonce = left()
	var record, signature string
	for line := range strings.SplitSeq(strings.ReplaceAll(read(t, p.licence("third.txt", "keys", nonce, "--transactions", "unlimited")), "\r", ""), "\n") {
		if strings.HasPrefix(line, "CI.TXLIC.1;") {
			record = line
		}
		if rest, ok := strings.CutPrefix(line, "CI.SIG.1;SIG"); ok {
			signature, _, _ = strings.Cut(rest, ";")
		}
	}
	for _, bad := range []struct{ status, record, signature string }{
		{"02", record, signature[:190]}, {"87", record, strings.Repeat("0", 192)}, {"87", "CI.TXLIC.2;CRC0000", signature},
	} {
		if status, _ := tcp.call("CI", "P"+bad.record, "H"+bad.signature); status != bad.status {
			t.Errorf("CI: %s instead of %s", status, bad.status)
		}
	}
	tcp.must(0, "CI", "P"+record, "H"+signature)
	if got := raw(); got != "00" {
		t.Errorf("SM?VC ends with %s", got)
	}
	if err := vend(); err != nil {
		t.Error(err)
	}

	// The key's own limit: 1000 less what was issued.
	_, err = c.API.IssueCreditToken(t.Context(), vending.MessageID(), c.Token, accounts[0].Config, 0, 900, 0, 0)
	if code, text := apiError(err); code != "ESm" || !strings.Contains(text, "INSUFFICIENT_CREDIT_BALANCE") {
		t.Errorf("above the limit: %q %q", code, text)
	}
}
