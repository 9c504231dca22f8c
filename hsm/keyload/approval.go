package keyload

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"strconv"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Types of the approval list's records.
const (
	typeApprovalHeader = "KMC.APL.1"
	typeApproval       = "KMC.APP.1"
	typeApprovalEnd    = "KMC.APE.1"
)

// Approvals is a list of KMC public keys that a root approves.
type Approvals struct {
	Issuer string
	Date   string // CCYYMMDDhhmmss
	Keys   []Approval
}

// Approval names one approved key: the digest is over its record without signature.
type Approval struct {
	KMC    string
	KPN    int
	SHA384 string
}

func approvalOf(k KMCPublicKey) Approval {
	digest := sha512.Sum384([]byte(k.Record().Before("SIG").Body()))
	return Approval{KMC: k.KMC, KPN: k.KPN, SHA384: upperHex(digest[:])}
}

// Approve adds a key to the list.
func (a *Approvals) Approve(k KMCPublicKey) { a.Keys = append(a.Keys, approvalOf(k)) }

// Approves reports whether the list names exactly this key.
func (a Approvals) Approves(k KMCPublicKey) bool {
	want := approvalOf(k)
	for _, got := range a.Keys {
		if got == want {
			return true
		}
	}
	return false
}

// SignedText returns the list signed by root.
func (a Approvals) SignedText(root *ecdsa.PrivateKey) (string, error) {
	lines := []string{NewRecord(typeApprovalHeader, "ISS", a.Issuer, "DAT", a.Date, "CNT", strconv.Itoa(len(a.Keys))).String()}
	for _, k := range a.Keys {
		lines = append(lines, NewRecord(typeApproval, "KMC", k.KMC, "KPN", strconv.Itoa(k.KPN), "SHA", k.SHA384).String())
	}
	end := NewRecord(typeApprovalEnd, "SHA", digestLines(lines))
	sig, err := SignRecord(root, end)
	if err != nil {
		return "", err
	}
	end.Fields = append(end.Fields, Field{"SIG", upperHex(sig)})
	return Armor(BlockApprovals, append(lines, end.String())...), nil
}

// ParseApprovals reads a list and verifies that root signed it.
func ParseApprovals(text string, root *ecdsa.PublicKey) (Approvals, error) {
	lines, err := Dearmor(BlockApprovals, text)
	if err != nil {
		return Approvals{}, err
	}
	if len(lines) < 2 {
		return Approvals{}, errkind.Errorf(errkind.Invalid, "the approval list is cut short")
	}
	last := len(lines) - 1
	end, err := ParseRecord(lines[last])
	if err == nil {
		err = end.ofType(typeApprovalEnd, "SHA", "SIG")
	}
	if err != nil {
		return Approvals{}, errkind.Errorf(errkind.Invalid, "approval list, last record: %w", err)
	}
	er := reader{rec: end}
	sig := er.hex("SIG", signatureSize)
	if er.err != nil || end.Get("SHA") != digestLines(lines[:last]) || !VerifyRecord(root, end.Before("SIG"), sig) {
		return Approvals{}, errkind.Errorf(errkind.Integrity, "the approval list is not signed by the approval root")
	}
	var a Approvals
	for i, line := range lines[:last] {
		if err := a.read(i, line); err != nil {
			return Approvals{}, errkind.Errorf(errkind.Invalid, "approval list, record %d: %w", i+1, err)
		}
	}
	return a, nil
}

func (a *Approvals) read(i int, line string) error {
	rec, err := ParseRecord(line)
	if err != nil {
		return err
	}
	r := reader{rec: rec}
	if i == 0 {
		r.err = rec.ofType(typeApprovalHeader, "ISS", "DAT", "CNT")
		a.Issuer, a.Date = r.ident("ISS"), rec.Get("DAT")
		r.time("DAT", DateTime)
		return r.err
	}
	r.err = rec.ofType(typeApproval, "KMC", "KPN", "SHA")
	key := Approval{KMC: r.ident("KMC"), KPN: r.number("KPN", 1, 999999), SHA384: rec.Get("SHA")}
	r.hex("SHA", 48)
	a.Keys = append(a.Keys, key)
	return r.err
}
