package pos

import (
	"encoding/binary"
	"slices"
	"strconv"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Flags of an issuing call. EXTERNAL_CLOCK and SPECIAL_RESERVED go together;
// no other combination is meaningful.
const (
	FlagExternalClock   = 1
	FlagTIDAdjustBDT    = 2
	FlagSpecialReserved = 4
)

// remembered is how many minutes of a meter are kept, in each of the lists.
const remembered = 50

// lastMinute is the last minute any base date can name, since 1993.
const lastMinute = 22089600 + int64(sts.MaxTID)

// unix1993 is the 1993 base date.
const unix1993 = 725846400

// wish is the minute that a call asks for, since the 1993 base date.
type wish struct {
	minute int64
	// fixed: the minute is named and may not be moved.
	fixed bool
	// special: it was asked for as the reserved minute of its day.
	special bool
}

// wishOf reads tokenTime and flags of a call at now.
func wishOf(now time.Time, tokenTime, flags int64) (wish, error) {
	switch flags {
	case 0, FlagSpecialReserved:
		tokenTime = now.Unix()
	case FlagExternalClock, FlagExternalClock | FlagSpecialReserved:
		if tokenTime < unix1993 || tokenTime >= unix1993+60*(lastMinute+1) {
			return wish{}, outOfRange("tokenTime", tokenTime, "Unix seconds from 1993-01-01 to 2066-11-24")
		}
	case FlagTIDAdjustBDT:
		if tokenTime < 0 || tokenTime > lastMinute {
			return wish{}, outOfRange("tokenTime", tokenTime, "minutes since 1993-01-01, 0.."+strconv.FormatInt(lastMinute, 10))
		}
		return wish{minute: tokenTime, fixed: true}, nil
	default:
		return wish{}, outOfRange("flags", flags, "0, 1, 2, 4 or 5")
	}
	minute := max(0, (tokenTime-unix1993)/60)
	if flags&FlagSpecialReserved != 0 {
		return wish{minute: minute - minute%1440 + 1, fixed: true, special: true}, nil
	}
	return wish{minute: minute}, nil
}

// reservedMinute reports whether a minute is 00:01 of its day. Every base date
// is a midnight, so this does not depend on it.
func reservedMinute(m int64) bool { return m%1440 == 1 }

// list is an ascending list of minutes, and the latest that it forgot.
type list struct {
	minutes []uint32
	floor   uint32 // 0: nothing forgotten
}

func (l *list) has(m uint32) bool {
	_, ok := slices.BinarySearch(l.minutes, m)
	return ok
}

// add inserts m and returns what had to be forgotten for it, if anything.
func (l *list) add(m uint32) (forgotten uint32, full bool) {
	i, _ := slices.BinarySearch(l.minutes, m)
	l.minutes = slices.Insert(l.minutes, i, m)
	if len(l.minutes) <= remembered {
		return 0, false
	}
	forgotten = l.minutes[0]
	l.minutes = slices.Delete(l.minutes, 0, 1)
	l.floor = max(l.floor, forgotten)
	return forgotten, true
}

// memory is what is remembered of one meter, whatever the base dates of its
// keys: the minutes of its ordinary tokens, of those whose minute the caller
// named, and of those in the reserved minute of a day, which only a caller who
// names it can get. A minute not above a list's floor may have been used and
// forgotten.
type memory struct {
	ordinary list
	named    list
	special  list
}

// next moves an ordinary wish to the first minute that is free: above the
// oldest remembered, not taken by any list, not reserved.
func (m *memory) next(wanted int64) (int64, error) {
	at := wanted
	if l := m.ordinary.minutes; len(l) > 0 {
		at = max(at, int64(l[0])+1)
	}
	at = max(at, int64(m.ordinary.floor)+1, int64(m.named.floor)+1)
	for ; at <= lastMinute; at++ {
		if !reservedMinute(at) && !m.ordinary.has(uint32(at)) && !m.named.has(uint32(at)) {
			return at, nil
		}
	}
	return 0, Faultf(VKExpired)
}

// use says what a named minute means for this meter.
type use uint8

const (
	fresh   use = iota // it can be taken
	again              // a named token has it: only that token may leave again
	unknown            // an ordinary token has it, or it is too old to tell
)

func (m *memory) useOf(minute int64) use {
	own, at := m.ownList(minute), uint32(minute)
	switch {
	case own.has(at):
		return again
	case at <= own.floor || m.ordinary.has(at) || !reservedMinute(minute) && at <= m.ordinary.floor:
		return unknown
	}
	return fresh
}

func (m *memory) ownList(minute int64) *list {
	if reservedMinute(minute) {
		return &m.special
	}
	return &m.named
}

// newest is the latest minute remembered.
func (m *memory) newest() int64 {
	var n uint32
	for _, l := range []list{m.ordinary, m.named, m.special} {
		n = max(n, l.floor)
		if len(l.minutes) > 0 {
			n = max(n, l.minutes[len(l.minutes)-1])
		}
	}
	return int64(n)
}

// memoryVersion begins each stored memory.
const memoryVersion = 1

// encode appends the stored form: for each list its floor, its length and its
// minutes, big-endian.
func (m *memory) encode(dst []byte) []byte {
	dst = append(dst, memoryVersion)
	for _, l := range []*list{&m.ordinary, &m.named, &m.special} {
		dst = binary.BigEndian.AppendUint32(dst, l.floor)
		dst = append(dst, byte(len(l.minutes)))
		for _, v := range l.minutes {
			dst = binary.BigEndian.AppendUint32(dst, v)
		}
	}
	return dst
}

func badMemory() error {
	return errkind.Errorf(errkind.Integrity, "token identifiers of a meter: malformed record")
}

// decodeMemory reads what encode wrote; nothing stored is an empty memory.
func decodeMemory(src []byte) (memory, error) {
	var m memory
	if len(src) == 0 {
		return m, nil
	}
	if src[0] != memoryVersion {
		return m, badMemory()
	}
	src = src[1:]
	for _, l := range []*list{&m.ordinary, &m.named, &m.special} {
		if len(src) < 5 || len(src) < 5+4*int(src[4]) || src[4] > remembered {
			return memory{}, badMemory()
		}
		l.floor = binary.BigEndian.Uint32(src)
		n := int(src[4])
		src = src[5:]
		l.minutes = make([]uint32, n, n+1)
		for i := range l.minutes {
			l.minutes[i] = binary.BigEndian.Uint32(src[4*i:])
		}
		if !slices.IsSorted(l.minutes) {
			return memory{}, badMemory()
		}
		src = src[4*n:]
	}
	if len(src) != 0 {
		return memory{}, badMemory()
	}
	return m, nil
}
