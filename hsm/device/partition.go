package device

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/tenantshare"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
)

// partition is one file of partitions/, and who holds it now.
type partition struct {
	UUID     string    `json:"uuid"`
	ModuleID string    `json:"moduleId"`
	Created  time.Time `json:"created"`
	ShareKey string    `json:"shareKey,omitempty"`
	// Box is the partition key, or with ShareKey the key encrypted to it,
	// sealed by the root.
	Box []byte `json:"box"`

	damaged bool
	holder  *channel
}

// place binds everything else in the file to the box.
func (p *partition) place() []byte {
	return sealed.Place([]byte("partition"), []byte(p.UUID), []byte(p.ModuleID),
		[]byte(p.Created.Format(time.RFC3339Nano)), []byte(p.ShareKey))
}

func (p *partition) public() hsmapi.Partition {
	return hsmapi.Partition{UUID: p.UUID, ModuleID: p.ModuleID, Created: p.Created, Open: p.holder != nil, ShareKey: p.ShareKey}
}

func (u *Unit) partitionDir() string { return filepath.Join(u.cfg.Dir, "partitions") }

func (u *Unit) partitionPath(id string) string { return filepath.Join(u.partitionDir(), id) }

func checkUUID(text string) error {
	id, err := uuid.Parse(text)
	if err != nil || id.String() != text {
		return errkind.Errorf(errkind.Invalid, "%.60q is no UUID in its usual form", text)
	}
	return nil
}

// readPartitions reads every partition. A file of zeros is a destruction that
// was interrupted and is finished here; a damaged file stays, refuses to open
// and can be destroyed.
func (u *Unit) readPartitions() (map[string]*partition, error) {
	entries, err := os.ReadDir(u.partitionDir())
	if err != nil {
		return nil, fmt.Errorf("partitions: %w", err)
	}
	all := make(map[string]*partition, len(entries))
	for _, e := range entries {
		id := e.Name()
		if checkUUID(id) != nil {
			continue
		}
		raw, err := atomicfile.Read(u.partitionPath(id), maxState)
		if err != nil {
			return nil, fmt.Errorf("partition %s: %w", id, err)
		}
		if allZero(raw) {
			if err := u.unlinkPartition(id); err != nil {
				return nil, err
			}
			continue
		}
		all[id] = u.parsePartition(id, raw)
	}
	return all, nil
}

func (u *Unit) parsePartition(id string, raw []byte) *partition {
	p := &partition{}
	if err := decodeStrict(raw, p); err == nil && p.UUID == id {
		if inner, err := u.boxes.Open(nil, p.Box, p.place()); err == nil {
			clear(inner)
			return p
		}
	}
	u.cfg.Log.Error("partition file is damaged or was changed outside the unit", "uuid", id)
	return &partition{UUID: id, ModuleID: p.ModuleID, Created: p.Created, ShareKey: p.ShareKey, damaged: true}
}

// Create makes a partition, or returns the one that exists with the same parameters.
func (u *Unit) Create(in hsmapi.CreatePartition) (hsmapi.Partition, error) {
	if err := checkUUID(in.UUID); err != nil {
		return hsmapi.Partition{}, err
	}
	if in.ShareKey != "" {
		if err := tenantshare.CheckKey(in.ShareKey); err != nil {
			return hsmapi.Partition{}, err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.ready(); err != nil {
		return hsmapi.Partition{}, err
	}
	if p := u.partitions[in.UUID]; p != nil {
		if p.damaged {
			return hsmapi.Partition{}, damagedError(in.UUID)
		}
		if p.ShareKey != in.ShareKey {
			return hsmapi.Partition{}, errkind.Errorf(errkind.Refused, "partition %s exists with another tenant share", in.UUID)
		}
		return p.public(), nil
	}
	moduleID, err := u.serials.take()
	if err != nil {
		return hsmapi.Partition{}, err
	}
	key := make([]byte, hsmapi.KeySize)
	_, _ = rand.Read(key)
	defer clear(key)
	p := &partition{UUID: in.UUID, ModuleID: moduleID, Created: u.rtc.Now().UTC().Truncate(time.Second), ShareKey: in.ShareKey}
	if err := u.writePartition(p, key); err != nil {
		return hsmapi.Partition{}, err
	}
	u.partitions[p.UUID] = p
	return p.public(), nil
}

// writePartition wraps key as p says and stores p.
func (u *Unit) writePartition(p *partition, key []byte) error {
	inner := slices.Clone(key)
	defer func() { clear(inner) }()
	if p.ShareKey != "" {
		var err error
		if inner, err = tenantshare.Wrap(p.ShareKey, p.UUID, key); err != nil {
			return err
		}
	}
	p.Box = u.boxes.Seal(nil, inner, p.place())
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(u.partitionPath(p.UUID), append(raw, '\n'), 0o600); err != nil {
		return errkind.Errorf(errkind.Unavailable, "store partition %s: %w", p.UUID, err)
	}
	return nil
}

// key opens a partition's key. With restrict-startup that needs a share that is
// valid at now. The caller holds mu and erases the key.
func (u *Unit) key(p *partition, share []byte, now time.Time) ([]byte, error) {
	if p.damaged {
		return nil, damagedError(p.UUID)
	}
	inner, err := u.boxes.Open(nil, p.Box, p.place())
	if err != nil {
		return nil, damagedError(p.UUID)
	}
	if p.ShareKey == "" {
		return inner, nil
	}
	if len(share) == 0 {
		return nil, errkind.Errorf(errkind.Refused, "VCM %s was created with restrict-startup: it needs a start request of its tenant", p.UUID)
	}
	secret, err := tenantshare.Open(u.decrypt, share, u.id.ESN, p.UUID, now)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	return tenantshare.Unwrap(secret, p.UUID, inner)
}

func damagedError(id string) error {
	return errkind.Errorf(errkind.Integrity, "partition %s is damaged on the disk of the unit; it can only be destroyed", id)
}

// Protect changes what a closed partition's key is wrapped under.
func (u *Unit) Protect(in hsmapi.Protect) (hsmapi.Partition, error) {
	if in.ShareKey != "" {
		if err := tenantshare.CheckKey(in.ShareKey); err != nil {
			return hsmapi.Partition{}, err
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	p, err := u.find(in.UUID)
	if err != nil {
		return hsmapi.Partition{}, err
	}
	if p.holder != nil {
		return hsmapi.Partition{}, errkind.Errorf(errkind.Mode, "VCM %s is running; stop it before restrict-startup is changed", p.UUID)
	}
	if p.ShareKey == in.ShareKey && !p.damaged {
		return p.public(), nil // also the answer to a repeated call
	}
	key, err := u.key(p, in.Share, u.rtc.Now())
	if err != nil {
		return hsmapi.Partition{}, err
	}
	defer clear(key)
	next := *p
	next.ShareKey = in.ShareKey
	if err := u.writePartition(&next, key); err != nil {
		return hsmapi.Partition{}, err
	}
	*p = next
	return p.public(), nil
}

// find returns a partition. The caller holds mu.
func (u *Unit) find(id string) (*partition, error) {
	if err := u.ready(); err != nil {
		return nil, err
	}
	p := u.partitions[id]
	if p == nil {
		return nil, errkind.Errorf(errkind.NotFound, "the unit has no partition %.60q", id)
	}
	return p, nil
}

// Destroy destroys a partition. Its wrapped key is overwritten first; then the
// file goes. One that does not exist is no error.
func (u *Unit) Destroy(id string) error {
	if err := checkUUID(id); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	p, err := u.find(id)
	if errkind.Is(err, errkind.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.holder != nil {
		return errkind.Errorf(errkind.Mode, "VCM %s is running; stop it before it is destroyed", id)
	}
	return u.erasePartition(id)
}

func (u *Unit) erasePartition(id string) error {
	if err := overwrite(u.partitionPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errkind.Errorf(errkind.Unavailable, "destroy partition %s: %w", id, err)
	}
	if err := u.unlinkPartition(id); err != nil {
		return err
	}
	u.counters.drop(u.partitions[id].ModuleID)
	u.capacity.drop(id)
	delete(u.partitions, id)
	return nil
}

func (u *Unit) unlinkPartition(id string) error {
	if err := os.Remove(u.partitionPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errkind.Errorf(errkind.Unavailable, "destroy partition %s: %w", id, err)
	}
	if err := atomicfile.SyncDir(u.partitionDir()); err != nil {
		return errkind.Errorf(errkind.Unavailable, "destroy partition %s: %w", id, err)
	}
	return nil
}

// Partitions returns a page of the partitions in the order of UUIDs.
func (u *Unit) Partitions(in hsmapi.List) (hsmapi.Page, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.ready(); err != nil {
		return hsmapi.Page{}, err
	}
	all := make([]hsmapi.Partition, 0, len(u.partitions))
	for id, p := range u.partitions {
		if id > in.After {
			all = append(all, p.public())
		}
	}
	slices.SortFunc(all, func(a, b hsmapi.Partition) int { return strings.Compare(a.UUID, b.UUID) })
	n := min(len(all), hsmapi.PageSize)
	return hsmapi.Page{Partitions: all[:n], More: n < len(all)}, nil
}

// Count returns how many partitions there are.
func (u *Unit) Count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.partitions)
}
