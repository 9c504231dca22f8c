package pos

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// BucketResults holds the newest results of each caller in a ring: a head with
// the number of results so far, and slots that are overwritten in turn, so that
// a vend deletes nothing.
const BucketResults = "results"

// ResultPrefix begins the keys of the slots, which are written often and read seldom.
const ResultPrefix = "s"

// key of a caller's records: a letter, realm and name with their lengths.
func (c Caller) key(letter byte) []byte {
	k := make([]byte, 0, 8+len(c.Realm)+len(c.Username))
	k = append(k, letter, byte(len(c.Realm)))
	k = append(k, c.Realm...)
	k = append(k, byte(len(c.Username)))
	return append(k, c.Username...)
}

func (c Caller) slotKey(slot uint32) []byte {
	return binary.BigEndian.AppendUint32(c.key('s'), slot)
}

func readHead(b *store.Bucket, c Caller) (uint64, error) {
	raw, err := b.Get(c.key('h'))
	if err != nil || raw == nil {
		return 0, err
	}
	if len(raw) != 8 {
		return 0, errkind.Errorf(errkind.Integrity, "results of %s: malformed head", c.Username)
	}
	return binary.BigEndian.Uint64(raw), nil
}

// keepResult stores tokens under the caller's message id, in the place of the
// caller's oldest result once there are as many as are kept.
func (s *Service) keepResult(tx *store.Tx, c Caller, messageID string, tokens []Token) error {
	b := tx.Bucket(BucketResults)
	seq, err := readHead(b, c)
	if err != nil {
		return err
	}
	seq++
	buf, _ := s.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer s.buffers.Put(buf)
	value := slices.Grow((*buf)[:0], 64+320*len(tokens))
	value = binary.BigEndian.AppendUint64(value, seq)
	value = append(value, byte(len(messageID)))
	value = append(value, messageID...)
	value = encodeTokens(value, tokens)
	*buf = value
	if err := b.Put(c.slotKey(uint32(seq%s.resultsKept())), value); err != nil {
		return err
	}
	return b.Put(c.key('h'), binary.BigEndian.AppendUint64(nil, seq))
}

func (s *Service) resultsKept() uint64 { return uint64(s.prefs.Int(accounts.PrefResultCache)) }

// Fetch returns the result of an earlier call of the same caller: of calls with
// the same message id the last one. Somebody else's is a miss like none. A call
// that is in progress is waited for, so that a miss means that none will come.
func (s *Service) Fetch(ctx context.Context, c Caller, messageID string) ([]Token, error) {
	if err := s.progress.wait(ctx, c, messageID); err != nil {
		return nil, err
	}
	var out []Token
	err := s.store.View(ctx, func(tx *store.Tx) error {
		out = nil
		b := tx.Bucket(BucketResults)
		head, err := readHead(b, c)
		if err != nil {
			return err
		}
		var newest uint64
		var found []byte
		err = b.Range(c.key('s'), func(_, value []byte) error {
			seq, id, tokens, ok := splitResult(value)
			if !ok {
				return errkind.Errorf(errkind.Integrity, "a result of %s: malformed record", c.Username)
			}
			if seq > newest && seq+s.resultsKept() > head && string(id) == messageID {
				newest, found = seq, bytes.Clone(tokens)
			}
			return nil
		})
		if err != nil || found == nil {
			return err
		}
		out, err = decodeTokens(found)
		return err
	})
	if err == nil && out == nil {
		err = Faultf(CacheMiss)
	}
	return out, err
}

func splitResult(value []byte) (seq uint64, id, tokens []byte, ok bool) {
	if len(value) < 9 || len(value) < 9+int(value[8]) {
		return 0, nil, nil, false
	}
	end := 9 + int(value[8])
	return binary.BigEndian.Uint64(value), value[9:end], value[end:], true
}

// Forget removes every result of a caller, so that a later user of the same
// name does not see them.
func (s *Service) Forget(ctx context.Context, c Caller) error {
	return s.store.Shrink(ctx, func(tx *store.Tx) error {
		b := tx.Bucket(BucketResults)
		if err := deleteAll(b, c.key('s')); err != nil {
			return err
		}
		return b.Delete(c.key('h'))
	})
}

func deleteAll(b *store.Bucket, prefix []byte) error {
	var keys [][]byte
	err := b.Range(prefix, func(key, _ []byte) error {
		keys = append(keys, bytes.Clone(key))
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
