package enrol

import (
	"bytes"
	"errors"
	"io/fs"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const rootFile = "maker-root.pub"

// MakerRoot returns the pinned root of the maker.
func (h *Home) MakerRoot() (ssh.PublicKey, error) {
	text, err := atomicfile.Read(h.path(rootFile), maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.Errorf(errkind.Refused, "no maker root is pinned on this host; give the maker's published key with --maker-root FILE once")
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Refused, "the pinned maker root cannot be read: %w", err)
	}
	return parseRoot(text, h.path(rootFile))
}

// PinMakerRoot keeps the root in file as the maker's. A different root that is
// already pinned is never replaced; first says that this call pinned it.
func (h *Home) PinMakerRoot(file string) (root ssh.PublicKey, first bool, err error) {
	text, err := atomicfile.Read(file, maxKeyFile)
	if err != nil {
		return nil, false, errkind.Errorf(errkind.NotFound, "maker root: %w", err)
	}
	root, err = parseRoot(text, file)
	if err != nil {
		return nil, false, err
	}
	if have, err := exists(h.path(rootFile)); have || err != nil {
		pinned, err := h.MakerRoot()
		if err != nil {
			return nil, false, err
		}
		if !bytes.Equal(pinned.Marshal(), root.Marshal()) {
			return nil, false, errkind.Errorf(errkind.Integrity, "the pinned maker root is %s, the one in %s is %s; if the maker has really changed, remove %s yourself",
				ssh.FingerprintSHA256(pinned), file, ssh.FingerprintSHA256(root), h.path(rootFile))
		}
		return pinned, false, nil
	}
	if err := h.folder(); err != nil {
		return nil, false, err
	}
	return root, true, atomicfile.Write(h.path(rootFile), ssh.MarshalAuthorizedKey(root), 0o644)
}

func parseRoot(text []byte, file string) (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey(text)
	if err != nil || len(bytes.TrimSpace(rest)) > 0 || key.Type() != ssh.KeyAlgoED25519 {
		return nil, errkind.Errorf(errkind.Invalid, "%s holds no Ed25519 public key of a maker", file)
	}
	return key, nil
}
