package keystore

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Key is a vending key known from a key load file or from the module.
type Key struct {
	SGC, KRN   int
	KMC        string
	Register   int               // 0: not in the module
	Attributes map[string]string // by tag
	Reason     string            // why it cannot vend, or empty
}

// notInModule is why a key that is only in a file cannot vend.
const notInModule = "not loaded in the security module"

func loadedKey(a tsm.Attributes) Key {
	k := Key{SGC: a.SGC, KRN: a.KRN, KMC: a.KMC, Register: a.Register, Attributes: make(map[string]string), Reason: a.Reason}
	for _, p := range a.Pairs() {
		k.Attributes[p[0]] = p[1]
	}
	return k
}

func filedKey(f fileKey) Key {
	k := Key{SGC: f.attr.SGC, KRN: f.attr.KRN, KMC: f.kmc, Attributes: make(map[string]string), Reason: notInModule}
	for _, field := range f.record.Fields {
		switch field.Tag {
		case "WVK", "MAC", "KID", "KMC":
		default:
			k.Attributes[field.Tag] = field.Value
		}
	}
	return k
}

// List lists vending keys by supply group and revision; all includes those
// that are in a key load file only.
func (k *Keystore) List(ctx context.Context, all bool) ([]Key, error) {
	var out []Key
	err := k.cfg.Store.View(ctx, func(tx *store.Tx) error {
		out = nil
		registers, err := k.registers(tx)
		if err != nil {
			return err
		}
		for _, a := range registers {
			out = append(out, loadedKey(a))
		}
		if !all {
			return nil
		}
		return eachPublicKey(tx, func(p publicKey) error {
			keys, err := keysOf(tx, p.parsed.KMC)
			for _, f := range keys {
				if _, loaded := registers[identity(f)]; !loaded {
					out = append(out, filedKey(f))
				}
			}
			return err
		})
	})
	slices.SortFunc(out, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.SGC, b.SGC), cmp.Compare(a.KRN, b.KRN), cmp.Compare(a.Register, b.Register))
	})
	return out, err
}

// find looks a key up in the module, then in the files.
func (k *Keystore) find(ctx context.Context, sgc, krn int) (key Key, err error) {
	err = k.cfg.Store.View(ctx, func(tx *store.Tx) error {
		key = Key{}
		files, err := findInFiles(tx, sgc, krn)
		if err != nil {
			return err
		}
		if len(files) > 0 {
			key = filedKey(files[0])
		}
		loaded, err := k.cfg.Module.Find(tx.Bucket(k.cfg.ModuleBucket), sgc, krn)
		if err != nil {
			return err
		}
		if len(loaded) > 0 {
			key = loadedKey(loaded[0])
		}
		return nil
	})
	if err == nil && key.Attributes == nil {
		err = errkind.Errorf(errkind.NotFound, "no vending key for %s", keyload.KeyName(sgc, krn))
	}
	return key, err
}

// Show returns one vending key.
func (k *Keystore) Show(ctx context.Context, sgc, krn int) (Key, error) {
	return k.find(ctx, sgc, krn)
}

// next is the key that a supply group's load is about, and its register if it is
// in the module. A group may have keys of several base dates and KMCs: those that
// can be loaded now come first, and of them those that are not in the module.
func (k *Keystore) next(ctx context.Context, sgc, krn int) (file fileKey, register int, err error) {
	err = k.cfg.Store.View(ctx, func(tx *store.Tx) error {
		files, err := findInFiles(tx, sgc, krn)
		if err != nil || len(files) == 0 {
			file = fileKey{}
			return err
		}
		registers, err := k.registers(tx)
		if err != nil {
			return err
		}
		slots, err := k.cfg.Module.Slots(tx.Bucket(k.cfg.ModuleBucket))
		if err != nil {
			return err
		}
		rank := func(f fileKey) int {
			n := registers[identity(f)].Register
			closed := !slices.ContainsFunc(slots, func(s tsm.Slot) bool { return s.KMC == f.kmc && s.State == stateLoading })
			return 2*number(closed) + number(n != 0)
		}
		file = slices.MinFunc(files, func(a, b fileKey) int { return cmp.Compare(rank(a), rank(b)) })
		register = registers[identity(file)].Register
		return nil
	})
	return file, register, err
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Load loads one key from its KMC's file.
func (k *Keystore) Load(ctx context.Context, by accounts.Actor, sgc, krn int) (Key, error) {
	ctx = tsm.By(ctx, by.String())
	k.ops.Lock()
	defer k.ops.Unlock()
	if _, err := k.find(ctx, sgc, krn); err != nil {
		return Key{}, err
	}
	file, register, err := k.next(ctx, sgc, krn)
	if err != nil {
		return Key{}, err
	}
	if file.kmc == "" {
		return Key{}, errkind.Errorf(errkind.NotFound, "%s is in no key load file: it came into the module another way", keyload.KeyName(sgc, krn))
	}
	if err := k.note(ctx, "klf.load", by, file.kmc, map[string]string{"keys": "1", "key": keyload.KeyName(sgc, krn)}); err != nil {
		return Key{}, err
	}
	a, err := k.cfg.Module.LoadKey(ctx, file.kmc, file.record.String(), register)
	if err != nil {
		return Key{}, err
	}
	return loadedKey(a), nil
}

// Delete erases one vending key from the module; it stays in its file.
func (k *Keystore) Delete(ctx context.Context, by accounts.Actor, sgc, krn int) error {
	ctx = tsm.By(ctx, by.String())
	k.ops.Lock()
	defer k.ops.Unlock()
	key, err := k.find(ctx, sgc, krn)
	if err != nil {
		return err
	}
	if key.Register == 0 {
		return errkind.Errorf(errkind.NotFound, "%s is %s", keyload.KeyName(sgc, krn), notInModule)
	}
	detail := map[string]string{"register": strconv.Itoa(key.Register)}
	if err := k.note(ctx, "vk.delete", by, keyload.KeyName(sgc, krn), detail); err != nil {
		return err
	}
	_, err = k.cfg.Module.DeleteKey(ctx, key.Register)
	return err
}

// Missing explains why a key is not in the module.
func (k *Keystore) Missing(tx *store.Tx, sgc, krn int) (reason string, err error) {
	files, err := findInFiles(tx, sgc, krn)
	if err != nil {
		return "", err
	}
	if len(files) > 0 {
		return notInModule, nil
	}
	return "not in the key store", nil
}

// Granted returns the limits that the KMC gave a loaded key, from its file.
func (k *Keystore) Granted(tx *store.Tx, a tsm.Attributes) (units, currency uint32, known bool, err error) {
	files, err := findInFiles(tx, a.SGC, a.KRN)
	if err != nil {
		return 0, 0, false, err
	}
	for _, f := range files {
		if f.kmc == a.KMC && f.attr.BDT == a.BDT {
			return f.attr.ULM, f.attr.CLM, true, nil
		}
	}
	return 0, 0, false, nil
}
