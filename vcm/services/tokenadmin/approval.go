package tokenadmin

import (
	"context"
	"crypto/ecdsa"
	"fmt"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

// KmcApprovals shows who approves KMC keys, and which.
func (h *handler) KmcApprovals(context.Context) (*prismadmin.Approvals, error) {
	t := h.Module.Trust()
	out := &prismadmin.Approvals{Issuer: t.List.Issuer, Keys: []string{}}
	if t.Root == nil {
		return out, nil
	}
	var err error
	if out.RootPem, err = keyload.FormatRoot(t.Root); err != nil {
		return nil, err
	}
	out.RootSha256 = keyload.RootFingerprint(t.Root)
	if at, err := time.Parse(keyload.DateTime, t.List.Date); err == nil {
		out.Date = unix(at)
	}
	for _, k := range t.List.Keys {
		out.Keys = append(out.Keys, fmt.Sprintf("%s key %d", k.KMC, k.KPN))
	}
	return out, nil
}

// KmcPinRoot pins an approval root, or none.
func (h *handler) KmcPinRoot(ctx context.Context, rootPem string) (*prismadmin.Approvals, error) {
	var root *ecdsa.PublicKey
	if rootPem != "" {
		var err error
		if root, err = keyload.ParseRoot(rootPem); err != nil {
			return nil, err
		}
	}
	if err := h.Module.PinApprovalRoot(h.by(ctx), root); err != nil {
		return nil, err
	}
	return h.KmcApprovals(ctx)
}

// KmcUploadApprovals takes a list that the pinned root signed.
func (h *handler) KmcUploadApprovals(ctx context.Context, text string) (*prismadmin.Approvals, error) {
	if _, err := h.Module.LoadApprovals(h.by(ctx), text); err != nil {
		return nil, err
	}
	return h.KmcApprovals(ctx)
}

// by has the module audit what it does as the session's.
func (h *handler) by(ctx context.Context) context.Context { return tsm.By(ctx, h.actor.String()) }
