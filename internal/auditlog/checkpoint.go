package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// A checkpoint is a C2SP signed note:
//
//	origin
//	size
//	root, base64
//
//	— origin base64(key id || signature)
//
// The key's name is the origin.

const (
	noteEd25519  = 1
	noteDash     = "— "
	noteKeyIDLen = 4
)

// Checkpoint is what a signed checkpoint says.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   [32]byte
}

func checkOrigin(origin string) error {
	if origin == "" || len(origin) > 255 {
		return errkind.Errorf(errkind.Invalid, "a log's origin has 1 to 255 characters")
	}
	for _, c := range []byte(origin) {
		if c <= ' ' || c >= 0x7f || c == '+' {
			return errkind.Errorf(errkind.Invalid, "log origin %q: only graphic ASCII without + is possible", origin)
		}
	}
	return nil
}

func (c Checkpoint) body() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

func noteKeyID(origin string, key ed25519.PublicKey) []byte {
	h := sha256.New()
	_, _ = h.Write([]byte(origin + "\n"))
	_, _ = h.Write([]byte{noteEd25519})
	_, _ = h.Write(key)
	return h.Sum(nil)[:noteKeyIDLen]
}

func (l *Log) sign(size uint64, root hash) []byte {
	body := Checkpoint{l.origin, size, root}.body()
	sig := append(noteKeyID(l.origin, l.PublicKey()), ed25519.Sign(l.key, []byte(body))...)
	return fmt.Appendf(nil, "%s\n%s%s %s\n", body, noteDash, l.origin, base64.StdEncoding.EncodeToString(sig))
}

// ParseCheckpoint checks a checkpoint against the log's key. Unknown signature
// lines, a witness's for example, are passed over.
func ParseCheckpoint(text []byte, key ed25519.PublicKey) (Checkpoint, error) {
	bad := func(what string) (Checkpoint, error) {
		return Checkpoint{}, errkind.Errorf(errkind.Integrity, "checkpoint: %s", what)
	}
	if len(key) != ed25519.PublicKeySize {
		return bad("the log's key is not an Ed25519 key")
	}
	body, sigs, ok := strings.Cut(string(text), "\n\n")
	if !ok || !strings.HasSuffix(sigs, "\n") {
		return bad("it is not a signed note")
	}
	body += "\n"
	lines := strings.Split(body, "\n")
	if len(lines) != 4 {
		return bad("it does not have three lines")
	}
	var c Checkpoint
	var err error
	c.Origin = lines[0]
	if c.Size, err = strconv.ParseUint(lines[1], 10, 64); err != nil {
		return bad("malformed size")
	}
	r, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(r) != hashSize {
		return bad("malformed root")
	}
	copy(c.Root[:], r)
	if checkOrigin(c.Origin) != nil || c.body() != body {
		return bad("it is not in canonical form")
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(sigs, "\n"), "\n") {
		name, encoded, ok := strings.Cut(strings.TrimPrefix(line, noteDash), " ")
		if !ok || !strings.HasPrefix(line, noteDash) {
			return bad("malformed signature line")
		}
		sig, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if err != nil || len(sig) < noteKeyIDLen {
			return bad("malformed signature")
		}
		if name != c.Origin || !bytes.Equal(sig[:noteKeyIDLen], noteKeyID(c.Origin, key)) {
			continue
		}
		if !ed25519.Verify(key, []byte(body), sig[noteKeyIDLen:]) {
			return bad("the signature is wrong")
		}
		return c, nil
	}
	return bad("it is not signed with the log's key")
}

func bareKeyLine(key ed25519.PublicKey) string {
	k, err := ssh.NewPublicKey(key)
	if err != nil { // an Ed25519 key of the right length always converts
		panic(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

// CertifiedKey returns the log key in a certificate line as Monitor.logKey
// gives it, if unit signed it for principal. The error is of kind Integrity.
func CertifiedKey(line string, unit ssh.PublicKey, principal string) (ed25519.PublicKey, error) {
	k, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(rest) > 0 {
		return nil, errkind.Errorf(errkind.Invalid, "the log key is not one line in authorized_keys form")
	}
	cert, ok := k.(*ssh.Certificate)
	if !ok {
		return nil, errkind.Errorf(errkind.Integrity, "the log key is not certified by the unit")
	}
	checker := ssh.CertChecker{IsHostAuthority: func(key ssh.PublicKey, _ string) bool {
		return bytes.Equal(key.Marshal(), unit.Marshal())
	}}
	if cert.CertType != ssh.HostCert || !checker.IsHostAuthority(cert.SignatureKey, "") {
		return nil, errkind.Errorf(errkind.Integrity, "the log key's certificate is not signed by the unit key")
	}
	// An empty list would be valid for every log.
	if !slices.Contains(cert.ValidPrincipals, principal) {
		return nil, errkind.Errorf(errkind.Integrity, "the log key's certificate is for %q, not for %q", strings.Join(cert.ValidPrincipals, ","), principal)
	}
	if err := checker.CheckCert(principal, cert); err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the log key's certificate: %w", err)
	}
	return ed25519Key(cert.Key)
}

func ed25519Key(k ssh.PublicKey) (ed25519.PublicKey, error) {
	ck, ok := k.(ssh.CryptoPublicKey)
	if !ok {
		return nil, errkind.Errorf(errkind.Integrity, "the log key is not an Ed25519 key")
	}
	key, ok := ck.CryptoPublicKey().(ed25519.PublicKey)
	if !ok {
		return nil, errkind.Errorf(errkind.Integrity, "the log key is not an Ed25519 key")
	}
	return key, nil
}
