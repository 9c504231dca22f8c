package tsm

import (
	"context"
	"crypto/ecdsa"
	"fmt"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Trust is what the module knows about which KMC public keys are genuine: the
// approval root that its holder pinned and the newest list that this root signed.
type Trust struct {
	Root *ecdsa.PublicKey  // nil while none is pinned: then no key is approved
	List keyload.Approvals // without Issuer while there is none
}

// approves reports whether the root vouches for a key: by the key's own
// approval signature or by its list.
func (t *Trust) approves(k keyload.KMCPublicKey) bool {
	return k.ApprovedBy(t.Root) || t.Root != nil && t.List.Approves(k)
}

// storedTrust is Trust as it is stored. The list was verified when it came in.
type storedTrust struct {
	Root string // PEM
	List keyload.Approvals
}

// Trust returns what the module knows now.
func (m *Module) Trust() Trust { return *m.trust.Load() }

// Approved reports whether a KMC.PUBKEY.1 record is approved. Whether
// unapproved keys may be used is the host's policy.
func (m *Module) Approved(publicKeyRecord string) bool {
	if m.runLateTests(); m.ready() != nil {
		return false
	}
	k, err := keyload.ParseKMCPublicKey(publicKeyRecord)
	return err == nil && m.trust.Load().approves(k)
}

// PinApprovalRoot makes root the one that approves KMC public keys; nil leaves
// none. The list of another root is dropped.
func (m *Module) PinApprovalRoot(ctx context.Context, root *ecdsa.PublicKey) error {
	m.trusting.Lock()
	defer m.trusting.Unlock()
	old := m.trust.Load()
	next := &Trust{Root: root}
	if root != nil && old.Root != nil && root.Equal(old.Root) {
		next.List = old.List
	}
	return m.setTrust(ctx, next, Event{Kind: "approval.root", Actor: actorOf(ctx), Subject: m.cfg.ModuleID,
		Detail: detail("before", fingerprint(old.Root), "after", fingerprint(root))})
}

// LoadApprovals takes an approval list that the pinned root signed. It replaces
// the one before, and cannot be older: a key that is not on the newest list is
// not approved by it.
func (m *Module) LoadApprovals(ctx context.Context, text string) (keyload.Approvals, error) {
	if err := m.tested(ctx); err != nil {
		return keyload.Approvals{}, err
	}
	m.trusting.Lock()
	defer m.trusting.Unlock()
	old := m.trust.Load()
	if old.Root == nil {
		return keyload.Approvals{}, errkind.Errorf(errkind.Mode, "no approval root is pinned that could vouch for an approval list; pin it first")
	}
	list, err := keyload.ParseApprovals(text, old.Root)
	if err != nil {
		return keyload.Approvals{}, err
	}
	if list.Date < old.List.Date {
		return keyload.Approvals{}, errkind.Errorf(errkind.Refused, "the approval list of %s is older than the one of %s that is in use", list.Date, old.List.Date)
	}
	return list, m.setTrust(ctx, &Trust{Root: old.Root, List: list}, Event{Kind: "approval.list", Actor: actorOf(ctx), Subject: list.Issuer,
		Detail: detail("date", list.Date, "keys", len(list.Keys))})
}

func (m *Module) setTrust(ctx context.Context, next *Trust, e Event) error {
	err := m.update(ctx, func(tx Tx) error {
		if next.Root == nil {
			if err := tx.Delete([]byte(keyTrust)); err != nil {
				return err
			}
			return m.audit(tx, e)
		}
		text, err := keyload.FormatRoot(next.Root)
		if err != nil {
			return err
		}
		if err := putJSON(tx, []byte(keyTrust), storedTrust{Root: text, List: next.List}); err != nil {
			return err
		}
		return m.audit(tx, e)
	})
	if err == nil {
		m.trust.Store(next)
	}
	return err
}

// loadTrust reads what the vault holds.
func (m *Module) loadTrust(tx Tx) error {
	t := &Trust{}
	var st storedTrust
	found, err := getJSON(tx, []byte(keyTrust), &st)
	if err != nil {
		return err
	}
	if found {
		if t.Root, err = keyload.ParseRoot(st.Root); err != nil {
			return fmt.Errorf("protected memory, approval root: %w", err)
		}
		t.List = st.List
	}
	m.trust.Store(t)
	return nil
}

func fingerprint(root *ecdsa.PublicKey) string {
	if root == nil {
		return "none"
	}
	return keyload.RootFingerprint(root)
}
