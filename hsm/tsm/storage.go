package tsm

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// The module's bucket, one place:
//
//	id           identity: creation time and static private key
//	tvp          time of the newest VKLOADREQ of any slot
//	kek          one octet; bit n is set while slot n is LOADING
//	slot/N       KEK slot 1 to 4
//	used         bitmap of the registers that hold a key
//	reg/NNN      register: attributes and key, never changed in place
//	lim/NNN      what vending reads and debits, see limits
//	ix/...       supply group, revision, base date and register
//	lic          transaction licence
//	sta          STA tables
//	trust        approval root and its newest list
const (
	keyIdentity = "id"
	keyTVP      = "tvp"
	keyLoading  = "kek"
	keyUsed     = "used"
	keyLicence  = "lic"
	keySTA      = "sta"
	keyTrust    = "trust"
	prefixIndex = "ix/"
	prefixLimit = "lim/"
)

// Keys that every vend reads.
var (
	licenceKey = []byte(keyLicence)
	loadingKey = []byte(keyLoading)
)

// SecretKeys are prefixes of the vault's keys whose values are secrets: a vault
// had better not keep them in memory in the clear. The module caches what it
// needs of them.
func SecretKeys() []string { return []string{keyIdentity, "slot/", "reg/"} }

func slotKey(n int) []byte     { return fmt.Appendf(nil, "slot/%d", n) }
func registerKey(n int) []byte { return appendDigits([]byte("reg/"), n, 3) }
func limitKey(n int) []byte {
	return appendDigits(append(make([]byte, 0, len(prefixLimit)+4), prefixLimit...), n, 3)
}

// appendDigits appends n with at least width digits. Every vend makes some keys,
// for which fmt is slow.
func appendDigits(p []byte, n, width int) []byte {
	for limit := 10; width > 1; width-- {
		if n < limit {
			p = append(p, "000000000000000000"[:width-1]...)
			break
		}
		limit *= 10
	}
	return strconv.AppendInt(p, int64(n), 10)
}

func indexPrefix(p []byte, sgc, krn int) []byte {
	p = append(p, prefixIndex...)
	p = append(appendDigits(p, sgc, 6), '/')
	if krn != 0 {
		p = append(strconv.AppendInt(p, int64(krn), 10), '/')
	}
	return p
}

func indexKey(sgc, krn, bdt, register int) []byte {
	return fmt.Appendf(indexPrefix(nil, sgc, krn), "%04d/%03d", bdt, register)
}

func registerOfIndex(key []byte) (n int) {
	for _, c := range key[len(key)-3:] {
		n = n*10 + int(c-'0')
	}
	return n
}

func getJSON(tx Tx, key []byte, v any) (bool, error) {
	raw, err := tx.Get(key)
	if err != nil || raw == nil {
		return false, err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("protected memory, %s: %w", key, err)
	}
	return true, nil
}

func putJSON(tx Tx, key []byte, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	defer clear(raw)
	return tx.Put(key, raw)
}

// licenceSize is the length of the stored licence: loaded 1, left 4,
// inhibit date 8 (Unix seconds, 0 for never), nonce 8.
const licenceSize = 21

func getLicence(tx Tx) (Licence, error) {
	l, err := licenceIn(tx)
	l.Nonce = append([]byte(nil), l.Nonce...)
	return l, err
}

// licenceIn is getLicence whose Nonce is valid during the transaction only.
func licenceIn(tx Tx) (Licence, error) {
	raw, err := tx.Get(licenceKey)
	if err != nil {
		return Licence{}, err
	}
	if len(raw) != licenceSize {
		return Licence{}, fmt.Errorf("protected memory: the licence has %d octets", len(raw))
	}
	l := Licence{
		Loaded: raw[0] == 1, Left: binary.BigEndian.Uint32(raw[1:]),
		Nonce: raw[13:21:21],
	}
	if at := int64(binary.BigEndian.Uint64(raw[5:])); at != 0 {
		l.InhibitVend = time.Unix(at, 0).UTC()
	}
	return l, nil
}

func putLicence(tx Tx, l Licence) error {
	raw := make([]byte, 0, licenceSize)
	if l.Loaded {
		raw = append(raw, 1)
	} else {
		raw = append(raw, 0)
	}
	raw = binary.BigEndian.AppendUint32(raw, l.Left)
	var at int64
	if !l.InhibitVend.IsZero() {
		at = l.InhibitVend.Unix()
	}
	raw = binary.BigEndian.AppendUint64(raw, uint64(at))
	return tx.Put(licenceKey, append(raw, l.Nonce...))
}

// loadingSlots returns the bits of the slots that are LOADING.
func loadingSlots(tx Tx) (byte, error) {
	raw, err := tx.Get(loadingKey)
	if err != nil || len(raw) == 0 {
		return 0, err
	}
	return raw[0], nil
}

func setLoading(tx Tx, slot int, loading bool) error {
	bits, err := loadingSlots(tx)
	if err != nil {
		return err
	}
	bits &^= 1 << slot
	if loading {
		bits |= 1 << slot
	}
	return tx.Put(loadingKey, []byte{bits})
}

// view and update run fn in one transaction of the vault, in a module that works.
func (m *Module) view(ctx context.Context, fn func(Tx) error) error {
	if err := m.ready(); err != nil {
		return err
	}
	return m.cfg.Vault.View(ctx, fn)
}

func (m *Module) update(ctx context.Context, fn func(Tx) error) error {
	if err := m.ready(); err != nil {
		return err
	}
	return m.cfg.Vault.Update(ctx, fn)
}

// ready refuses everything in the error state.
func (m *Module) ready() error {
	if why := m.failure.Load(); why != nil {
		return refuse(CodeAppError, "the module is in its error state: %s", *why)
	}
	return nil
}

func (m *Module) audit(tx Tx, e Event) error {
	if m.cfg.Audit == nil {
		return nil
	}
	e.Time = m.Now()
	if err := m.cfg.Audit(tx, e); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}
