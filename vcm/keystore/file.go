package keystore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Buckets of the key load files. A file has a header under its KMC and role, a
// record for each key, and an index entry for each key.
const (
	bucketFiles   = "klf.files"   // role, KMC -> header
	bucketRecords = "klf.records" // file, number -> VK.WRAP.1
	bucketIndex   = "klf.index"   // SGC, KRN, file, number -> KMC
)

// Roles of a file.
const (
	roleCurrent   byte = 'h'
	roleCandidate byte = 'c' // stored, the module has not taken its response yet
)

// fileID is the first octets of the digest of a file's response record.
type fileID [8]byte

// header describes one stored file.
type header struct {
	ID       fileID    `json:"id"`
	TVP      string    `json:"tvp"`
	KID      string    `json:"kid"`
	Response string    `json:"response"`
	Count    int       `json:"count"`
	Uploaded time.Time `json:"uploaded"`
}

func idOf(k keyload.KLF) fileID {
	sum := sha256.Sum256([]byte(k.Response))
	return fileID(sum[:8])
}

func headerKey(role byte, kmc string) []byte { return append([]byte{role}, kmc...) }

func recordKey(id fileID, n int) []byte { return binary.BigEndian.AppendUint32(id[:], uint32(n)) }

func indexKey(sgc, krn int, id fileID, n int) []byte {
	k := binary.BigEndian.AppendUint32(nil, uint32(sgc))
	k = append(k, byte(krn))
	k = append(k, id[:]...)
	return binary.BigEndian.AppendUint32(k, uint32(n))
}

func readHeader(tx *store.Tx, role byte, kmc string) (*header, error) {
	raw, err := tx.Bucket(bucketFiles).Get(headerKey(role, kmc))
	if err != nil || raw == nil {
		return nil, err
	}
	h := new(header)
	if err := json.Unmarshal(raw, h); err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "stored key load file of KMC %s: %w", kmc, err)
	}
	return h, nil
}

func currentFile(tx *store.Tx, kmc string) (*header, error) { return readHeader(tx, roleCurrent, kmc) }

// putCandidate stores a file beside the current one.
func putCandidate(tx *store.Tx, k keyload.KLF, h header) error {
	if err := dropFile(tx, k.KMC, roleCandidate); err != nil {
		return err
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := tx.Bucket(bucketFiles).Put(headerKey(roleCandidate, k.KMC), raw); err != nil {
		return err
	}
	for n, rec := range k.Keys {
		a, err := keyload.Attributes(rec)
		if err != nil {
			return errkind.Errorf(errkind.Invalid, "key %d of the key load file: %w", n+1, err)
		}
		if err := tx.Bucket(bucketRecords).Put(recordKey(h.ID, n), []byte(rec.String())); err != nil {
			return err
		}
		if err := tx.Bucket(bucketIndex).Put(indexKey(a.SGC, a.KRN, h.ID, n), []byte(k.KMC)); err != nil {
			return err
		}
	}
	return nil
}

// promote makes the candidate the current file.
func promote(tx *store.Tx, kmc string) error {
	c, err := readHeader(tx, roleCandidate, kmc)
	if err != nil || c == nil {
		return err
	}
	old, err := currentFile(tx, kmc)
	if err != nil {
		return err
	}
	if old != nil && old.ID != c.ID {
		if err := dropFile(tx, kmc, roleCurrent); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := tx.Bucket(bucketFiles).Put(headerKey(roleCurrent, kmc), raw); err != nil {
		return err
	}
	return tx.Bucket(bucketFiles).Delete(headerKey(roleCandidate, kmc))
}

// dropFile removes a file's header, and its keys unless the KMC's other file
// is the same one.
func dropFile(tx *store.Tx, kmc string, role byte) error {
	h, err := readHeader(tx, role, kmc)
	if err != nil || h == nil {
		return err
	}
	if err := tx.Bucket(bucketFiles).Delete(headerKey(role, kmc)); err != nil {
		return err
	}
	other, err := readHeader(tx, role^roleCurrent^roleCandidate, kmc)
	if err != nil || other != nil && other.ID == h.ID {
		return err
	}
	for n := range h.Count {
		rec, err := readRecord(tx, h.ID, n)
		if err != nil {
			return err
		}
		if a, err := keyload.Attributes(rec); err == nil {
			if err := tx.Bucket(bucketIndex).Delete(indexKey(a.SGC, a.KRN, h.ID, n)); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketRecords).Delete(recordKey(h.ID, n)); err != nil {
			return err
		}
	}
	return nil
}

func readRecord(tx *store.Tx, id fileID, n int) (keyload.Record, error) {
	raw, err := tx.Bucket(bucketRecords).Get(recordKey(id, n))
	if err != nil {
		return keyload.Record{}, err
	}
	rec, err := keyload.ParseWrappedKey(string(raw))
	if err != nil {
		return keyload.Record{}, errkind.Errorf(errkind.Integrity, "stored key record %d: %w", n+1, err)
	}
	return rec, nil
}

// fileKey is one key of a stored file.
type fileKey struct {
	kmc    string
	record keyload.Record
	attr   keyload.KeyAttributes
}

// keysOf lists the keys of a KMC's current file.
func keysOf(tx *store.Tx, kmc string) ([]fileKey, error) {
	h, err := currentFile(tx, kmc)
	if err != nil || h == nil {
		return nil, err
	}
	out := make([]fileKey, 0, h.Count)
	for n := range h.Count {
		rec, err := readRecord(tx, h.ID, n)
		if err != nil {
			return nil, err
		}
		a, err := keyload.Attributes(rec)
		if err != nil {
			return nil, errkind.Errorf(errkind.Integrity, "stored key record %d of KMC %s: %w", n+1, kmc, err)
		}
		out = append(out, fileKey{kmc, rec, a})
	}
	return out, nil
}

// findInFiles finds a key in the current files, by the index.
func findInFiles(tx *store.Tx, sgc, krn int) ([]fileKey, error) {
	type hit struct {
		kmc string
		id  fileID
		n   int
	}
	var hits []hit
	prefix := indexKey(sgc, krn, fileID{}, 0)[:5]
	err := tx.Bucket(bucketIndex).Range(prefix, func(key, kmc []byte) error {
		rest := bytes.TrimPrefix(key, prefix)
		hits = append(hits, hit{string(kmc), fileID(rest[:8]), int(binary.BigEndian.Uint32(rest[8:]))})
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []fileKey
	for _, h := range hits {
		current, err := currentFile(tx, h.kmc)
		if err != nil {
			return nil, err
		}
		if current == nil || current.ID != h.id {
			continue // a candidate's
		}
		rec, err := readRecord(tx, h.id, h.n)
		if err != nil {
			return nil, err
		}
		a, err := keyload.Attributes(rec)
		if err != nil {
			return nil, errkind.Errorf(errkind.Integrity, "stored key record %d of KMC %s: %w", h.n+1, h.kmc, err)
		}
		out = append(out, fileKey{h.kmc, rec, a})
	}
	return out, nil
}
