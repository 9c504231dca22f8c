package keystore

import (
	"context"
	"errors"
	"strconv"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// UploadKLF stores a key load file and hands its response to the module, which
// erases the slot's keys. None of the new ones is loaded yet.
func (k *Keystore) UploadKLF(ctx context.Context, by accounts.Actor, text string) (Centre, error) {
	ctx = tsm.By(ctx, by.String())
	klf, err := keyload.ParseKLF(text)
	if err != nil {
		return Centre{}, notKLF(err)
	}
	response, err := keyload.ParseResponse(klf.Response)
	if err != nil {
		return Centre{}, errkind.Errorf(errkind.Invalid, "response in the key load file: %w", err)
	}
	h := header{
		ID: idOf(klf), TVP: klf.TVP, KID: response.KID, Response: klf.Response, Count: len(klf.Keys),
		Uploaded: k.cfg.Clock.Now().UTC(),
	}
	k.ops.Lock()
	defer k.ops.Unlock()
	if err := k.mend(ctx); err != nil {
		return Centre{}, err
	}
	err = k.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if err := putCandidate(tx, klf, h); err != nil {
			return err
		}
		return k.audit(tx, "klf.upload", by, klf.KMC, map[string]string{"keys": strconv.Itoa(h.Count), "tvp": klf.TVP})
	})
	if err != nil {
		return Centre{}, err
	}
	if _, _, err := k.cfg.Module.ProcessResponse(ctx, klf.Response); err != nil {
		drop := k.cfg.Store.Shrink(ctx, func(tx *store.Tx) error { return dropFile(tx, klf.KMC, roleCandidate) })
		return Centre{}, errors.Join(err, drop)
	}
	if err := k.cfg.Store.Update(ctx, func(tx *store.Tx) error { return promote(tx, klf.KMC) }); err != nil {
		return Centre{}, err
	}
	return k.Centre(ctx, klf.KMC)
}

// notKLF keeps the kind of what a file is instead, or of what has become of it.
func notKLF(err error) error {
	switch errkind.Of(err) {
	case errkind.Refused, errkind.Integrity:
		return err
	default:
		return errkind.Errorf(errkind.Invalid, "this cannot be read as a key load file: %w", err)
	}
}

// mend finishes what a crash interrupted: a candidate whose response the module
// took becomes the KMC's file, any other is dropped.
func (k *Keystore) mend(ctx context.Context) error {
	var candidates []string
	err := k.cfg.Store.View(ctx, func(tx *store.Tx) error {
		candidates = nil
		return tx.Bucket(bucketFiles).Range([]byte{roleCandidate}, func(key, _ []byte) error {
			candidates = append(candidates, string(key[1:]))
			return nil
		})
	})
	if err != nil || len(candidates) == 0 {
		return err
	}
	return k.cfg.Store.Shrink(ctx, func(tx *store.Tx) error {
		slots, err := k.cfg.Module.Slots(tx.Bucket(k.cfg.ModuleBucket))
		if err != nil {
			return err
		}
		for _, kmc := range candidates {
			h, err := readHeader(tx, roleCandidate, kmc)
			if err != nil || h == nil {
				return err
			}
			taken := false
			for _, s := range slots {
				taken = taken || s.KMC == kmc && s.State == stateLoading && s.SessionKID == h.KID && s.Announced == h.Count
			}
			if taken {
				err = promote(tx, kmc)
			} else {
				err = dropFile(tx, kmc, roleCandidate)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

const stateLoading = "LOADING"

// Progress is the outcome of one step of loading.
type Progress struct {
	Loaded    int    // in this step
	Remaining int    // in the file and not in the module
	Failure   string // why this step ended early, or empty
}

// LoadAll loads up to most keys of a KMC's file that are not in the module.
func (k *Keystore) LoadAll(ctx context.Context, by accounts.Actor, kmc string, most int) (Progress, error) {
	ctx = tsm.By(ctx, by.String())
	if most < 1 {
		return Progress{}, errkind.Errorf(errkind.Invalid, "load at least one key in a step, not %d", most)
	}
	k.ops.Lock()
	defer k.ops.Unlock()
	if err := k.mend(ctx); err != nil {
		return Progress{}, err
	}
	missing, err := k.notLoaded(ctx, kmc)
	if err != nil {
		return Progress{}, err
	}
	p := Progress{Remaining: len(missing)}
	if len(missing) == 0 {
		return p, nil
	}
	step := missing[:min(most, len(missing))]
	if err := k.note(ctx, "klf.load", by, kmc, map[string]string{"keys": strconv.Itoa(len(step))}); err != nil {
		return p, err
	}
	for _, f := range step {
		if _, err := k.cfg.Module.LoadKey(ctx, kmc, f.record.String(), 0); err != nil {
			var refused *tsm.Error
			if !errors.As(err, &refused) {
				return p, err
			}
			p.Failure = "Failed to load all VKs: " + ModuleText(refused)
			return p, nil
		}
		p.Loaded++
		p.Remaining--
	}
	return p, nil
}

// ModuleText is the form in which people are shown a refusal of the module.
func ModuleText(e *tsm.Error) string {
	if e.Code == tsm.CodeExtended {
		return e.Text
	}
	return "STS API error " + e.Code.Identifier() + " (code " + string(e.Code) + ")"
}

// notLoaded lists the keys of a KMC's file that no register holds.
func (k *Keystore) notLoaded(ctx context.Context, kmc string) ([]fileKey, error) {
	var out []fileKey
	err := k.cfg.Store.View(ctx, func(tx *store.Tx) error {
		out = nil
		all, err := keysOf(tx, kmc)
		if err != nil {
			return err
		}
		if all == nil {
			return errkind.Errorf(errkind.NotFound, "no key load file of KMC %q: upload it first", kmc)
		}
		registers, err := k.registers(tx)
		if err != nil {
			return err
		}
		for _, f := range all {
			if _, loaded := registers[identity(f)]; !loaded {
				out = append(out, f)
			}
		}
		return nil
	})
	return out, err
}

// vkIdentity is what makes two records the same vending key.
type vkIdentity struct {
	kmc           string
	sgc, krn, bdt int
}

func identity(f fileKey) vkIdentity { return vkIdentity{f.kmc, f.attr.SGC, f.attr.KRN, f.attr.BDT} }

func (k *Keystore) registers(tx *store.Tx) (map[vkIdentity]tsm.Attributes, error) {
	all, err := k.cfg.Module.Registers(tx.Bucket(k.cfg.ModuleBucket))
	if err != nil {
		return nil, err
	}
	out := make(map[vkIdentity]tsm.Attributes, len(all))
	for _, a := range all {
		out[vkIdentity{a.KMC, a.SGC, a.KRN, a.BDT}] = a
	}
	return out, nil
}
