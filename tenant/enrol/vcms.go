package enrol

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/tenant/vcmfile"
)

const vcmFile = "vcm.conf"

// VerifyVCM reads a VCM file and verifies it against the pinned root.
func (h *Home) VerifyVCM(file []byte) (*vcmfile.File, error) {
	root, err := h.MakerRoot()
	if err != nil {
		return nil, err
	}
	f, err := vcmfile.Parse(file)
	if err != nil {
		return nil, err
	}
	_, err = f.Verify(root)
	return f, err
}

// AdmitVCM reports whether f may be enrolled: a tenant has one VCM of a unit
// enrolled at a time.
func (h *Home) AdmitVCM(f *vcmfile.File) error {
	enrolled, err := h.VCMs()
	if err != nil {
		return err
	}
	for _, e := range enrolled {
		if e.ESN == f.ESN && e.UUID != f.UUID {
			return errkind.Errorf(errkind.Refused, "VCM %s of the same unit %s is enrolled; unenroll it first", e.UUID, e.ESN)
		}
	}
	return nil
}

// SaveVCM enrols a verified VCM.
func (h *Home) SaveVCM(f *vcmfile.File, file []byte) error {
	if err := h.folder("vcms", f.UUID); err != nil {
		return err
	}
	return atomicfile.Write(h.path("vcms", f.UUID, vcmFile), file, 0o644)
}

// VCMs returns the enrolled VCMs in the order of their UUIDs, each verified.
func (h *Home) VCMs() ([]*vcmfile.File, error) {
	entries, err := os.ReadDir(h.path("vcms"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("services home: %w", err)
	}
	var out []*vcmfile.File
	for _, e := range entries {
		f, err := h.VCM(e.Name())
		if errkind.Is(err, errkind.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// VCM returns one enrolled VCM; the only one there is for "".
func (h *Home) VCM(id string) (*vcmfile.File, error) {
	if id == "" {
		return h.onlyVCM()
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "%q is no UUID", id)
	}
	file, err := atomicfile.Read(h.path("vcms", parsed.String(), vcmFile), armor.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errkind.Errorf(errkind.NotFound, "VCM %s is not enrolled on this host", parsed)
	}
	if err != nil {
		return nil, errkind.Errorf(errkind.Refused, "VCM %s: %w", parsed, err)
	}
	f, err := h.VerifyVCM(file)
	if err != nil {
		return nil, err
	}
	if f.UUID != parsed.String() {
		return nil, errkind.Errorf(errkind.Integrity, "the file of VCM %s is that of %s", parsed, f.UUID)
	}
	return f, nil
}

func (h *Home) onlyVCM() (*vcmfile.File, error) {
	all, err := h.VCMs()
	if err != nil {
		return nil, err
	}
	switch len(all) {
	case 0:
		return nil, errkind.Errorf(errkind.NotFound, "no VCM is enrolled on this host; see 'hsmadmin vcm enroll'")
	case 1:
		return all[0], nil
	}
	return nil, errkind.Errorf(errkind.Invalid, "%d VCMs are enrolled on this host; say which one with --uuid", len(all))
}

// RemoveVCM forgets an enrolled VCM.
func (h *Home) RemoveVCM(id string) error {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return errkind.Errorf(errkind.Invalid, "%q is no UUID", id)
	}
	have, err := exists(h.path("vcms", parsed.String(), vcmFile))
	if err != nil {
		return fmt.Errorf("services home: %w", err)
	}
	if !have {
		return errkind.Errorf(errkind.NotFound, "VCM %s is not enrolled on this host", parsed)
	}
	return os.RemoveAll(h.path("vcms", parsed.String()))
}
