package tokenadmin

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// SmPublicKey returns what the maker sends to a KMC once.
func (h *handler) SmPublicKey(ctx context.Context) (string, error) {
	record := h.Module.PublicKeyRecord()
	text := keyload.Armor(keyload.BlockSMPublicKey, record)
	if h.Attest == nil {
		return text, nil
	}
	attested, err := h.Attest(ctx, record)
	return text + attested, err
}

// SmLoadTables stores a set of STA tables and uses it from then on.
func (h *handler) SmLoadTables(ctx context.Context, name, tables string) (string, error) {
	if err := h.Module.LoadSTATables(h.by(ctx), name, []byte(tables)); err != nil {
		return "", err
	}
	st, err := h.Module.Status(ctx)
	return st.STASHA256, err
}

// LicenseLoad loads a transaction licence.
func (h *handler) LicenseLoad(ctx context.Context, text string) (string, error) {
	l, err := h.Module.LoadLicence(h.by(ctx), text)
	if err != nil {
		return "", err
	}
	return describe(l), nil
}

// describe tells what a licence allows.
func describe(l tsm.Licence) string {
	left := "unlimited transactions"
	if l.Left != tsm.Unlimited {
		left = strconv.FormatUint(uint64(l.Left), 10) + " transactions left"
	}
	if l.InhibitVend.IsZero() {
		return left + ", no inhibit vend date"
	}
	return fmt.Sprintf("%s, inhibit vend date %s", left, l.InhibitVend.UTC().Format(time.RFC3339))
}
