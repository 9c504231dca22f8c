package kmc

import (
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// What the files of the maker and of his units are signed for.
const (
	recordNamespace  = "tesserae-sm-pubkey"
	warrantNamespace = "tesserae-warrant"
	warrantTitle     = "tesserae warrant"

	signatureBegin = "-----BEGIN SSH SIGNATURE-----\n"
	signatureEnd   = "-----END SSH SIGNATURE-----\n"
)

// attestation is the proof in a module's public key file: the unit signed the
// record, and the maker's warrant names the unit's key.
type attestation struct{ record, warrant []byte }

// Attested verifies that a module's public key file leads to the maker's root,
// and returns the ESN of the unit that holds the module.
func Attested(text string, root ssh.PublicKey) (esn string, err error) {
	key, err := keyload.ParseSMPublicKeyText(text)
	if err != nil {
		return "", err
	}
	bad := func(err error) error {
		return errkind.Errorf(errkind.Integrity, "the public key of module %s is not attested: %w", key.ModuleID, err)
	}
	proof, err := readAttestation(text, key)
	if err != nil {
		return "", bad(err)
	}
	message, err := armor.Verify(proof.warrant, root, warrantNamespace)
	if err != nil {
		return "", bad(errkind.Errorf(errkind.Integrity, "the unit's warrant: %w", err))
	}
	warrant, err := armor.Parse(message, warrantTitle)
	if err != nil {
		return "", bad(err)
	}
	esn, _ = warrant.Get("ESN")
	line, _ := warrant.Get("Unit-Key")
	unit, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return "", bad(errkind.Errorf(errkind.Integrity, "the Unit-Key of the warrant: %w", err))
	}
	if _, err := armor.Verify(proof.record, unit, recordNamespace); err != nil {
		return "", bad(errkind.Errorf(errkind.Integrity, "the record: %w", err))
	}
	return esn, nil
}

// readAttestation takes the file apart; line ends may have become CR LF.
func readAttestation(text string, key keyload.SMPublicKey) (attestation, error) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	at := strings.Index(text, "\n"+warrantTitle+"\n")
	if at < 0 {
		return attestation{}, errkind.Errorf(errkind.Integrity, "the file carries no warrant of its unit")
	}
	signature, found := between(text[:at+1], signatureBegin, signatureEnd)
	if !found {
		return attestation{}, errkind.Errorf(errkind.Integrity, "the file carries no signature of its unit")
	}
	warrant, found := through(text[at+1:], signatureEnd)
	if !found {
		return attestation{}, errkind.Errorf(errkind.Integrity, "the warrant is cut off")
	}
	return attestation{record: []byte(key.Record().String() + "\n" + signature), warrant: []byte(warrant)}, nil
}

// between returns the text from the first begin to the end after it, with both.
func between(text, begin, end string) (string, bool) {
	i := strings.Index(text, begin)
	if i < 0 {
		return "", false
	}
	return through(text[i:], end)
}

func through(text, end string) (string, bool) {
	i := strings.Index(text, end)
	if i < 0 {
		return "", false
	}
	return text[:i+len(end)], true
}
