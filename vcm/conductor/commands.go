package conductor

import (
	"context"
	"fmt"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// command is an SM command: the types its fields may have, and what it does.
type command struct {
	fields []string
	run    func(ctx context.Context, c *session, f *fields, out *payload) error
}

// commands is the one table of SM commands. Which of them a module has is for
// its firmware to say.
func commands() map[tsm.Command]command {
	return map[tsm.Command]command{
		tsm.CommandDI: {[]string{""}, identification},
		tsm.CommandQI: {[]string{""}, queryIdentification},
		tsm.CommandQD: {[]string{""}, queryDate},
		tsm.CommandGA: {[]string{"N"}, getAttributes},
		tsm.CommandCQ: {[]string{""}, counterQuery},
		tsm.CommandVC: {[]string{"NPNNNNHH"}, vendCredit},
		tsm.CommandVM: {[]string{"NPNNNNHH"}, vendManagement},
		tsm.CommandVK: {[]string{"NNPNNNNN"}, vendKeyChange},
		tsm.CommandVT: {[]string{"NPNNP", "NPNNNP"}, verifyToken},
		tsm.CommandKC: {[]string{"P"}, keyAgreement},
		tsm.CommandKR: {[]string{"P"}, processResponse},
		tsm.CommandKL: {[]string{"PP", "PPN"}, loadKey},
		tsm.CommandKF: {[]string{"P"}, finish},
		tsm.CommandKX: {[]string{"P"}, deleteSlot},
		tsm.CommandKD: {[]string{"N"}, deleteKey},
		tsm.CommandQK: {[]string{"N"}, querySlot},
		tsm.CommandCI: {[]string{"PH"}, instruction},
		tsm.CommandQL: {[]string{"N"}, queryLog},
	}
}

func identification(ctx context.Context, c *session, _ *fields, out *payload) error {
	st, err := c.server.cfg.Module.Status(ctx)
	if err != nil {
		return err
	}
	out.text(st.ModuleID).text(st.FirmwareID)
	return nil
}

func queryIdentification(ctx context.Context, c *session, _ *fields, out *payload) error {
	st, err := c.server.cfg.Module.Status(ctx)
	if err != nil {
		return err
	}
	out.text(st.PublicKeyID).text(st.HardwareID).text(st.FirmwareID).hex(st.FirmwareHash)
	return nil
}

func queryDate(ctx context.Context, c *session, _ *fields, out *payload) error {
	st, err := c.server.cfg.Module.Status(ctx)
	if err != nil {
		return err
	}
	out.time(st.Clock).number(uint64(st.Window / time.Minute))
	return nil
}

func getAttributes(ctx context.Context, c *session, f *fields, out *payload) error {
	m := c.server.cfg.Module
	return m.Vault().View(ctx, func(tx tsm.Tx) error {
		a, err := m.Attributes(tx, register(f.numbers[0]))
		if err != nil {
			return err
		}
		out.reset()
		out.text(a.String())
		return nil
	})
}

// register turns a field into a register number; what is too large for one
// stays out of range.
func register(n uint32) int { return int(min(n, 1<<20)) }

func counterQuery(ctx context.Context, c *session, _ *fields, out *payload) error {
	st, err := c.server.cfg.Module.Status(ctx)
	if err != nil {
		return err
	}
	out.number(uint64(st.Licence.Left)).text(st.ModuleID).hex(st.Licence.Nonce).time(st.Clock)
	return nil
}

func instruction(ctx context.Context, c *session, f *fields, _ *payload) error {
	return c.server.cfg.Module.Instruction(ctx, f.texts[0], f.octets(1))
}

func queryLog(ctx context.Context, c *session, f *fields, out *payload) error {
	e, err := c.server.cfg.Module.LogEntry(ctx, uint64(f.numbers[0]))
	if err != nil {
		return err
	}
	out.number(uint64(f.numbers[0])).time(e.Time)
	text := e.Text
	if room := shortLine - headerSize - 2 - len(*out) - len("P~") - crcSize; len(text) > room {
		text = text[:room-len(cut)] + cut
	}
	out.text(text)
	return nil
}

// Clients read only the low octet of a response's length, so what they parse
// has to fit: an entry of the log is cut there. Its whole text is in the log's
// export.
const (
	shortLine = 248
	cut       = "..."
)

func querySlot(ctx context.Context, c *session, f *fields, out *payload) error {
	m := c.server.cfg.Module
	return m.Vault().View(ctx, func(tx tsm.Tx) error {
		all, err := m.Slots(tx)
		if err != nil {
			return err
		}
		n := int64(f.numbers[0])
		if n < 1 || n > int64(len(all)) {
			return &tsm.Error{Code: tsm.CodeLogRange, Text: fmt.Sprintf("there is no KEK slot %d", n)}
		}
		s := all[n-1]
		request := 0
		if s.Request {
			request = 1
		}
		out.reset()
		out.text(fmt.Sprintf("KMC%s;STA%s;REQ%d;TVP%s;CNT%d", s.KMC, s.State, request, s.TVP, s.Registers))
		return nil
	})
}
