package keyload

import (
	"crypto/ecdsa"
	"fmt"
	"strconv"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Types of the instruction records.
const (
	TypeTransactionLicence = "CI.TXLIC.1"
	TypeSignature          = "CI.SIG.1"
)

// TransactionLicence is the maker's signed instruction that allows one module a
// number of transactions, until a date.
type TransactionLicence struct {
	ModuleID     string
	Nonce        []byte    // the module's current one, 8 octets: a licence works once
	Transactions uint32    // added to what is left; Unlimited stops counting
	InhibitVend  time.Time // no token after this instant; zero for never
}

// neverInhibit stands for a zero InhibitVend.
const neverInhibit = "99991231235959"

// Record returns the instruction's record.
func (l TransactionLicence) Record() Record {
	ivd := neverInhibit
	if !l.InhibitVend.IsZero() {
		ivd = l.InhibitVend.UTC().Format(DateTime)
	}
	return NewRecord(TypeTransactionLicence, "SMI", l.ModuleID, "NON", upperHex(l.Nonce),
		"CNT", strconv.FormatUint(uint64(l.Transactions), 10), "IVD", ivd)
}

// ParseTransactionLicence reads an instruction's record.
func ParseTransactionLicence(record string) (TransactionLicence, error) {
	rec, err := ParseRecord(record)
	if err != nil {
		return TransactionLicence{}, err
	}
	if err := rec.ofType(TypeTransactionLicence, "SMI", "NON", "CNT", "IVD"); err != nil {
		return TransactionLicence{}, err
	}
	r := reader{rec: rec}
	l := TransactionLicence{
		ModuleID: r.digits("SMI", 8), Nonce: r.hex("NON", 8),
		Transactions: uint32(r.number("CNT", 0, int(Unlimited))), InhibitVend: r.time("IVD", DateTime),
	}
	if rec.Get("IVD") == neverInhibit {
		l.InhibitVend = time.Time{}
	}
	return l, r.err
}

// SignedText returns the licence as its maker sends it: the record and its
// signature between guards. The signature covers the record with its CRC.
func (l TransactionLicence) SignedText(key *ecdsa.PrivateKey) (string, error) {
	record := l.Record().String()
	sig, err := signText(key, record)
	if err != nil {
		return "", fmt.Errorf("sign the transaction licence: %w", err)
	}
	return Armor(BlockLicence, record, NewRecord(TypeSignature, "SIG", upperHex(sig)).String()), nil
}

// ParseLicenceText finds a licence between its guards in any text and returns
// the instruction's record and its signature, unverified.
func ParseLicenceText(text string) (record string, signature []byte, err error) {
	lines, err := Dearmor(BlockLicence, text)
	if err != nil {
		return "", nil, err
	}
	if len(lines) != 2 {
		return "", nil, errkind.Errorf(errkind.Invalid, "the %s block has %d records instead of two", BlockLicence, len(lines))
	}
	rec, err := ParseRecord(lines[1])
	if err == nil {
		err = rec.ofType(TypeSignature, "SIG")
	}
	if err != nil {
		return "", nil, errkind.Errorf(errkind.Invalid, "%s block, record 2: %w", BlockLicence, err)
	}
	r := reader{rec: rec}
	signature = r.hex("SIG", 0)
	if r.err != nil {
		return "", nil, errkind.Errorf(errkind.Invalid, "%s block: %w", BlockLicence, r.err)
	}
	return lines[0], signature, nil
}

// VerifyInstruction verifies the maker's signature over an instruction's record.
func VerifyInstruction(key *ecdsa.PublicKey, record string, signature []byte) bool {
	return verifyText(key, record, signature)
}

// SignInstruction signs an instruction's record.
func SignInstruction(key *ecdsa.PrivateKey, record string) ([]byte, error) {
	return signText(key, record)
}
