package armor

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	begin = "-----BEGIN SSH SIGNATURE-----\n"
	end   = "-----END SSH SIGNATURE-----\n"
	width = 70 // ssh-keygen's
)

// Sign returns message followed by its SSHSIG signature under namespace.
func Sign(message []byte, signer ssh.Signer, namespace string) ([]byte, error) {
	sig, err := sshsig.Sign(bytes.NewReader(message), signer, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return join(message, sig)
}

// Attach returns message followed by a signature that was made elsewhere, in
// any PEM layout. It does not verify; Verify does.
func Attach(message, armored []byte) ([]byte, error) {
	block, rest := pem.Decode(armored)
	if block == nil || block.Type != sshsig.PEMType || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errkind.Errorf(errkind.Invalid, "this is no armored SSH signature")
	}
	sig, err := sshsig.ParseSignature(block.Bytes)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "SSH signature: %w", err)
	}
	return join(message, sig)
}

func join(message []byte, sig *sshsig.Signature) ([]byte, error) {
	if len(message) == 0 || message[len(message)-1] != '\n' {
		return nil, errkind.Errorf(errkind.Invalid, "a message to sign ends in a newline")
	}
	if signatureStart(message) >= 0 {
		return nil, errkind.Errorf(errkind.Invalid, "the message already carries a signature")
	}
	file := append(bytes.Clone(message), armored(sig)...)
	if len(file) > MaxSize {
		return nil, errkind.Errorf(errkind.Invalid, "signed file of %d bytes is larger than %d", len(file), MaxSize)
	}
	return file, nil
}

// Split separates a file into its message and its armored signature. It
// verifies the form, not the signature.
func Split(file []byte) (message, signature []byte, err error) {
	message, signature, _, err = split(file)
	return message, signature, err
}

// SignerKey returns the key that the file's signature claims. It proves nothing
// until Verify has been called with a key that is trusted for another reason.
func SignerKey(file []byte) (ssh.PublicKey, error) {
	_, _, sig, err := split(file)
	if err != nil {
		return nil, err
	}
	return sig.PublicKey, nil
}

// Verify returns the message of a file that key signed for namespace.
func Verify(file []byte, key ssh.PublicKey, namespace string) (message []byte, err error) {
	message, _, sig, err := split(file)
	if err != nil {
		return nil, err
	}
	if sig.Namespace != namespace {
		return nil, errkind.Errorf(errkind.Integrity, "the signature is for namespace %.40q, want %q", sig.Namespace, namespace)
	}
	if !bytes.Equal(sig.PublicKey.Marshal(), key.Marshal()) {
		return nil, errkind.Errorf(errkind.Integrity, "signed by key %s, want %s",
			ssh.FingerprintSHA256(sig.PublicKey), ssh.FingerprintSHA256(key))
	}
	if err := sshsig.Verify(bytes.NewReader(message), sig, key, sig.HashAlgorithm, namespace); err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the signature does not match: the file was changed after it was signed")
	}
	return message, nil
}

func split(file []byte) (message, signature []byte, sig *sshsig.Signature, err error) {
	if len(file) > MaxSize {
		return nil, nil, nil, errkind.Errorf(errkind.Invalid, "file of %d bytes is larger than %d", len(file), MaxSize)
	}
	at := signatureStart(file)
	if at == 0 {
		return nil, nil, nil, errkind.Errorf(errkind.Invalid, "the file is a signature without a text")
	}
	if at < 0 {
		return nil, nil, nil, errkind.Errorf(errkind.Invalid, "the file carries no signature (no line %q)", begin[:len(begin)-1])
	}
	message, signature = file[:at:at], file[at:]
	line := 1 + bytes.Count(message, []byte{'\n'})
	stop := bytes.Index(signature, []byte("\n"+end))
	if stop < 0 {
		return nil, nil, nil, lineErrorf(line, "the signature has no end: the file is cut off")
	}
	if extra := signature[stop+1+len(end):]; len(extra) > 0 {
		return nil, nil, nil, lineErrorf(line+1+bytes.Count(signature[:stop+1], []byte{'\n'}),
			"%d bytes follow the signature; nothing may", len(extra))
	}
	block, _ := pem.Decode(signature)
	if block == nil {
		return nil, nil, nil, lineErrorf(line, "the signature is not readable")
	}
	if sig, err = sshsig.ParseSignature(block.Bytes); err != nil {
		return nil, nil, nil, lineErrorf(line, "the signature is not readable: %w", err)
	}
	if again := armored(sig); !bytes.Equal(again, signature) {
		return nil, nil, nil, lineErrorf(line-1+differs(again, signature), "the signature is not laid out as ssh-keygen prints it")
	}
	return message, signature, sig, nil
}

// signatureStart finds the first line that begins a signature; -1 if none.
func signatureStart(file []byte) int {
	if bytes.HasPrefix(file, []byte(begin)) {
		return 0
	}
	if i := bytes.Index(file, []byte("\n"+begin)); i >= 0 {
		return i + 1
	}
	return -1
}

func armored(sig *sshsig.Signature) []byte {
	text := base64.StdEncoding.EncodeToString(sig.Marshal())
	out := []byte(begin)
	for len(text) > width {
		out = append(append(out, text[:width]...), '\n')
		text = text[width:]
	}
	return append(append(append(out, text...), '\n'), end...)
}
