package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	// serialBlock is how many ids one durable write reserves. A crash loses the
	// rest of a block: ids have gaps, and are never used twice.
	serialBlock = 32
	// serialRange is how many ids a unit has.
	serialRange = 10_000_000
)

// serials gives out module ids of partitions.
type serials struct {
	path        string
	first, next uint64
	reserved    uint64 // ids below it are durably marked as used
}

type serialFile struct {
	Reserved uint64 `json:"reserved"`
}

func openSerials(path, unitModuleID string) (*serials, error) {
	first, err := strconv.ParseUint(unitModuleID, 10, 64)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "module id %q of the unit", unitModuleID)
	}
	s := &serials{path: path, first: first, next: first + 1, reserved: first + 1}
	p, err := atomicfile.Read(path, maxState)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("module ids: %w", err)
	}
	var f serialFile
	if err := decodeStrict(p, &f); err != nil || f.Reserved <= first {
		return nil, errkind.Errorf(errkind.Integrity, "%s is damaged: without it module ids could repeat", path)
	}
	s.next, s.reserved = f.Reserved, f.Reserved
	return s, nil
}

// take returns an id that was never returned before, also over restarts.
func (s *serials) take() (string, error) {
	if s.next >= s.reserved {
		limit := min(s.next+serialBlock, s.first+serialRange)
		if s.next >= limit {
			return "", errkind.Errorf(errkind.Limit, "the unit has used all its %d module ids", serialRange)
		}
		p, err := json.Marshal(serialFile{Reserved: limit})
		if err != nil {
			return "", err
		}
		if err := atomicfile.Write(s.path, p, 0o600); err != nil {
			return "", errkind.Errorf(errkind.Unavailable, "reserve module ids: %w", err)
		}
		s.reserved = limit
	}
	id := s.next
	s.next++
	return fmt.Sprintf("%08d", id), nil
}
