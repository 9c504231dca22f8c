package keystore

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

const bucketPublicKeys = "kmcs" // KMC -> publicKey

// publicKey is a KMC's public key as stored.
type publicKey struct {
	Record   string    `json:"record"`
	Uploaded time.Time `json:"uploaded"`
	parsed   keyload.KMCPublicKey
}

func eachPublicKey(tx *store.Tx, fn func(publicKey) error) error {
	return tx.Bucket(bucketPublicKeys).Range(nil, func(name, raw []byte) error {
		p, err := decodePublicKey(raw)
		if err != nil {
			return errkind.Errorf(errkind.Integrity, "stored public key of KMC %q: %w", name, err)
		}
		return fn(p)
	})
}

func decodePublicKey(raw []byte) (p publicKey, err error) {
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, err
	}
	p.parsed, err = keyload.ParseKMCPublicKey(p.Record)
	return p, err
}

// UploadPublicKey stores a KMC's public key from its text file. A key that no
// approval root signed is refused unless a preference allows it.
func (k *Keystore) UploadPublicKey(ctx context.Context, by accounts.Actor, text string) (Centre, error) {
	key, err := keyload.ParseKMCPublicKeyText(text)
	if err != nil {
		return Centre{}, errkind.Errorf(errkind.Invalid, "this is not a KMC public key file: %w", err)
	}
	if _, err := key.Key(); err != nil {
		return Centre{}, errkind.Errorf(errkind.Invalid, "public key of KMC %s: %w", key.KMC, err)
	}
	now := k.cfg.Clock.Now().UTC()
	if !now.Before(key.ExpiresAt()) {
		return Centre{}, errkind.Errorf(errkind.Refused, "public key of KMC %s expired on %s, and it is %s: ask the KMC for its current one",
			key.KMC, key.Expires.Format(time.DateOnly), now.Format(time.RFC3339))
	}
	record := key.Record().String()
	approved := k.cfg.Module.Approved(record)
	if !approved && !k.cfg.Preferences.Bool(accounts.PrefAllowUnapprovedKMC) {
		return Centre{}, errkind.Errorf(errkind.Refused,
			"public key of KMC %s is not approved: for a test KMC, set the preference %s to True and upload it again",
			key.KMC, accounts.PrefAllowUnapprovedKMC)
	}
	raw, err := json.Marshal(publicKey{Record: record, Uploaded: now})
	if err != nil {
		return Centre{}, errkind.Errorf(errkind.Internal, "public key of KMC %s: %w", key.KMC, err)
	}
	k.ops.Lock()
	defer k.ops.Unlock()
	err = k.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		b := tx.Bucket(bucketPublicKeys)
		before := "none"
		if old, err := b.Get([]byte(key.KMC)); err != nil {
			return err
		} else if old != nil {
			p, err := decodePublicKey(old)
			if err != nil {
				return err
			}
			before = strconv.Itoa(p.parsed.KPN)
		}
		if err := b.Put([]byte(key.KMC), raw); err != nil {
			return err
		}
		return k.audit(tx, "kmc.key", by, key.KMC, map[string]string{
			"kpn.before": before, "kpn.after": strconv.Itoa(key.KPN), "approved": strconv.FormatBool(approved)})
	})
	if err != nil {
		return Centre{}, err
	}
	return k.Centre(ctx, key.KMC)
}

func (k *Keystore) publicKey(ctx context.Context, kmc string) (publicKey, error) {
	var p publicKey
	err := k.cfg.Store.View(ctx, func(tx *store.Tx) error {
		raw, err := tx.Bucket(bucketPublicKeys).Get([]byte(kmc))
		if err != nil {
			return err
		}
		if raw == nil {
			return errkind.Errorf(errkind.NotFound, "no public key of KMC %q: upload it first", kmc)
		}
		p, err = decodePublicKey(raw)
		return err
	})
	return p, err
}

// GenerateRequest starts a key agreement and returns the VKLOADREQ to send,
// between its guards. Earlier requests cannot be answered any more.
func (k *Keystore) GenerateRequest(ctx context.Context, by accounts.Actor, kmc string) (string, error) {
	ctx = tsm.By(ctx, by.String())
	k.ops.Lock()
	defer k.ops.Unlock()
	p, err := k.publicKey(ctx, kmc)
	if err != nil {
		return "", err
	}
	agree := k.cfg.Module.KeyAgreement
	if !k.cfg.Module.Approved(p.Record) {
		if !k.cfg.Preferences.Bool(accounts.PrefAllowUnapprovedKMC) {
			return "", errkind.Errorf(errkind.Refused, "public key of KMC %s is not approved and the preference %s is False", kmc, accounts.PrefAllowUnapprovedKMC)
		}
		agree = k.cfg.Module.KeyAgreementUnapproved
	}
	if err := k.note(ctx, "kmc.request", by, kmc, map[string]string{"kpn": strconv.Itoa(p.parsed.KPN)}); err != nil {
		return "", err
	}
	request, err := agree(ctx, p.Record)
	if err != nil {
		return "", err
	}
	return keyload.Armor(keyload.BlockRequest, request), nil
}

// FetchRequest returns the newest VKLOADREQ again.
func (k *Keystore) FetchRequest(ctx context.Context, kmc string) (string, error) {
	request, err := k.cfg.Module.PendingRequest(ctx, kmc)
	if err != nil {
		return "", err
	}
	return keyload.Armor(keyload.BlockRequest, request), nil
}

// EndSession ends the key agreement session of a KMC. What is not loaded by
// then needs a new VKLOADREQ.
func (k *Keystore) EndSession(ctx context.Context, by accounts.Actor, kmc string) (Centre, error) {
	ctx = tsm.By(ctx, by.String())
	k.ops.Lock()
	defer k.ops.Unlock()
	if err := k.note(ctx, "kmc.endsession", by, kmc, nil); err != nil {
		return Centre{}, err
	}
	if _, err := k.cfg.Module.Finish(ctx, kmc); err != nil {
		return Centre{}, err
	}
	return k.Centre(ctx, kmc)
}

// DeleteSlot removes a KMC: its slot with its keys, its file, its public key.
func (k *Keystore) DeleteSlot(ctx context.Context, by accounts.Actor, kmc string) (erased int, err error) {
	ctx = tsm.By(ctx, by.String())
	k.ops.Lock()
	defer k.ops.Unlock()
	c, err := k.Centre(ctx, kmc)
	if err != nil {
		return 0, err
	}
	if c.InModule {
		if erased, err = k.cfg.Module.DeleteSlot(ctx, kmc); err != nil && tsm.CodeOf(err) != tsm.CodeKEKSlotNotFound {
			return 0, err
		}
	}
	err = k.cfg.Store.Shrink(ctx, func(tx *store.Tx) error {
		for _, role := range []byte{roleCurrent, roleCandidate} {
			if err := dropFile(tx, kmc, role); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketPublicKeys).Delete([]byte(kmc)); err != nil {
			return err
		}
		return k.audit(tx, "kmc.delete", by, kmc, map[string]string{"registersErased": strconv.Itoa(erased)})
	})
	return erased, err
}
