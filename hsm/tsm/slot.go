package tsm

import (
	"context"
	"crypto/ecdh"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

// States of a KEK slot.
const (
	StateActive  = "ACTIVE"
	StatePending = "PENDING"
	StateLoading = "LOADING"
)

// slotRecord is a KEK slot as it is stored.
type slotRecord struct {
	number    int // 1 to KEKSlots
	KMC       string
	KPN       int
	Activates time.Time
	Expires   time.Time // last day
	Point     []byte    // the KMC's static public key
	TVP       string
	Request   string `json:",omitempty"` // the unanswered VKLOAD.REQ.1
	Ephemeral []byte `json:",omitempty"` // its private key
	KID       string `json:",omitempty"`
	KEK       []byte `json:",omitempty"`
	KAK       []byte `json:",omitempty"`
	Announced int
}

func (s *slotRecord) state() string {
	switch {
	case len(s.KEK) > 0:
		return StateLoading
	case s.Request != "":
		return StatePending
	default:
		return StateActive
	}
}

// endSession zeroises the session's keys.
func (s *slotRecord) endSession() {
	s.wipe()
	s.KEK, s.KAK, s.KID, s.Announced = nil, nil, "", 0
}

// wipe overwrites the copies of the slot's secrets in memory.
func (s *slotRecord) wipe() {
	clear(s.KEK)
	clear(s.KAK)
	clear(s.Ephemeral)
}

// putSlot stores a slot and its LOADING bit, and wipes the copy in memory.
func putSlot(tx Tx, s *slotRecord) error {
	defer s.wipe()
	if err := putJSON(tx, slotKey(s.number), s); err != nil {
		return err
	}
	return setLoading(tx, s.number, s.state() == StateLoading)
}

// slots returns the slots that are in use, by number.
func slots(tx Tx) ([]*slotRecord, error) {
	var out []*slotRecord
	for n := 1; n <= KEKSlots; n++ {
		s := &slotRecord{number: n}
		found, err := getJSON(tx, slotKey(n), s)
		if err != nil {
			return nil, err
		}
		if found {
			out = append(out, s)
		}
	}
	return out, nil
}

// slotOf returns a KMC's slot, nil if it has none.
func slotOf(tx Tx, kmc string) (*slotRecord, error) {
	all, err := slots(tx)
	if err != nil {
		return nil, err
	}
	var found *slotRecord
	for _, s := range all {
		if s.KMC == kmc {
			found = s
		} else {
			s.wipe()
		}
	}
	return found, nil
}

// freeSlot returns the lowest free slot number, 0 if there is none.
func freeSlot(tx Tx) (int, error) {
	for n := 1; n <= KEKSlots; n++ {
		raw, err := tx.Get(slotKey(n))
		if err != nil {
			return 0, err
		}
		if raw == nil {
			return n, nil
		}
	}
	return 0, nil
}

// Slots lists the KEK slots: SM?QK.
func (m *Module) Slots(tx Tx) ([]Slot, error) {
	if err := m.ready(); err != nil {
		return nil, err
	}
	all, err := slots(tx)
	if err != nil {
		return nil, err
	}
	keys := make(map[int]int)
	if err := eachLimit(tx, func(_ int, l limits) { keys[l.slot]++ }); err != nil {
		return nil, err
	}
	out := make([]Slot, len(all))
	for i, s := range all {
		s.wipe()
		out[i] = Slot{
			KMC: s.KMC, KPN: s.KPN, State: s.state(), Request: s.Request != "", TVP: s.TVP,
			Activates: s.Activates, Expires: s.Expires, Announced: s.Announced,
			Registers: keys[s.number], SessionKID: s.KID,
		}
	}
	return out, nil
}

// PendingRequest returns the newest VKLOAD.REQ.1 record of a KMC while it is
// unanswered, CodeKMCKeyState otherwise.
func (m *Module) PendingRequest(ctx context.Context, kmc string) (request string, err error) {
	err = m.view(ctx, func(tx Tx) error {
		s, err := slotOf(tx, kmc)
		if err != nil {
			return err
		}
		if s == nil || s.Request == "" {
			return refuse(CodeKMCKeyState, "there is no unanswered VKLOADREQ for KMC %s; generate one", kmc)
		}
		s.wipe()
		request = s.Request
		return nil
	})
	return request, err
}

// DeleteSlot erases a KEK slot and its keys: SM?KX.
func (m *Module) DeleteSlot(ctx context.Context, kmc string) (erased int, err error) {
	err = m.update(ctx, func(tx Tx) error {
		s, err := slotOf(tx, kmc)
		if err != nil {
			return err
		}
		if s == nil {
			return refuse(CodeKEKSlotNotFound, "there is no KEK slot for KMC %s", kmc)
		}
		s.wipe()
		if erased, err = eraseSlotKeys(tx, s.number); err != nil {
			return err
		}
		if err := tx.Delete(slotKey(s.number)); err != nil {
			return err
		}
		if err := setLoading(tx, s.number, false); err != nil {
			return err
		}
		return m.audit(tx, Event{Kind: "slot.delete", Actor: actorOf(ctx), Subject: kmc, Detail: detail("registersErased", erased)})
	})
	m.forget(err)
	return erased, err
}

// ephemeral returns the private key of the slot's outstanding request.
func (s *slotRecord) ephemeral() (*ecdh.PrivateKey, error) {
	return ecdh.P384().NewPrivateKey(s.Ephemeral)
}

// request parses the slot's outstanding request.
func (s *slotRecord) request() (keyload.Request, error) { return keyload.ParseRequestText(s.Request) }
