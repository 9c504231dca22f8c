package tsm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

// nonceSize is the length of the nonce that an instruction must name.
const nonceSize = 8

// Counter returns the transaction licence: SM?CQ.
func (m *Module) Counter(ctx context.Context) (l Licence, err error) {
	err = m.view(ctx, func(tx Tx) error {
		l, err = getLicence(tx)
		return err
	})
	return l, err
}

// Instruction obeys a signed instruction: SM?CI. The signature is r and s of
// ECDSA on P-384, 48 octets each, over the record. A transaction licence adds
// to what is left of the one before; the nonce makes it work once.
func (m *Module) Instruction(ctx context.Context, record string, signature []byte) error {
	_, err := m.instruction(ctx, record, signature)
	return err
}

// LoadLicence finds a transaction licence between its guards inside any text
// and obeys it.
func (m *Module) LoadLicence(ctx context.Context, text string) (Licence, error) {
	if err := m.ready(); err != nil {
		return Licence{}, err
	}
	record, signature, err := keyload.ParseLicenceText(text)
	if err != nil {
		return Licence{}, refuse(CodeInvalidInstruction, "transaction licence: %s", err)
	}
	return m.instruction(ctx, record, signature)
}

func (m *Module) instructionKey() (*ecdsa.PublicKey, error) {
	if m.cfg.InstructionKey != nil || m.cfg.FindInstructionKey == nil {
		return m.cfg.InstructionKey, nil
	}
	key, err := m.cfg.FindInstructionKey()
	if err != nil {
		return nil, fmt.Errorf("key that signs instructions: %w", err)
	}
	return key, nil
}

func (m *Module) instruction(ctx context.Context, record string, signature []byte) (l Licence, err error) {
	if err := m.tested(ctx); err != nil {
		return Licence{}, err
	}
	if !m.Supports(CommandCI) {
		return Licence{}, refuse(CodeInvalidHeader, "firmware %s has no transaction licence", m.cfg.FirmwareID)
	}
	if len(signature) != 96 {
		return Licence{}, refuse(CodeFormatError, "an instruction's signature has 96 octets, not %d", len(signature))
	}
	order, err := keyload.ParseTransactionLicence(record)
	var rectype *keyload.TypeError
	if errors.As(err, &rectype) {
		return Licence{}, refuse(CodeInvalidInstruction, "unknown instruction %s", rectype.Got)
	}
	if err != nil {
		return Licence{}, refuse(CodeInvalidInstruction, "instruction: %s", err)
	}
	if order.ModuleID != m.cfg.ModuleID {
		return Licence{}, refuse(CodeInvalidModuleID, "the instruction is for module %s; this is module %s", order.ModuleID, m.cfg.ModuleID)
	}
	key, err := m.instructionKey()
	if err != nil {
		return Licence{}, err
	}
	if !keyload.VerifyInstruction(key, record, signature) {
		return Licence{}, refuse(CodeInvalidInstruction, "the instruction is not signed by this module's maker")
	}
	err = m.update(ctx, func(tx Tx) error {
		if l, err = getLicence(tx); err != nil {
			return err
		}
		if !bytes.Equal(l.Nonce, order.Nonce) {
			return refuse(CodeInvalidInstruction, "the instruction was used before or was made for another nonce; the module's nonce is %X", l.Nonce)
		}
		l.Left = addTransactions(l, order.Transactions)
		l.Loaded, l.InhibitVend = true, order.InhibitVend
		if l.Nonce, err = m.newNonce(); err != nil {
			return err
		}
		if err := putLicence(tx, l); err != nil {
			return err
		}
		until := "never"
		if !l.InhibitVend.IsZero() {
			until = l.InhibitVend.UTC().Format(time.RFC3339)
		}
		return m.audit(tx, Event{Kind: "licence.load", Actor: actorOf(ctx), Subject: m.cfg.ModuleID,
			Detail: detail("added", order.Transactions, "left", l.Left, "inhibitVend", until)})
	})
	return l, err
}

// addTransactions adds to what is left; a module that never had a licence starts from nothing.
func addTransactions(l Licence, more uint32) uint32 {
	if !l.Loaded || more == Unlimited {
		return more
	}
	if l.Left == Unlimited {
		return more // a counted licence replaces an uncounted one
	}
	return uint32(min(uint64(l.Left)+uint64(more), uint64(Unlimited)-1))
}

func (m *Module) newNonce() ([]byte, error) {
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(m.cfg.Rand, nonce); err != nil {
		return nil, fmt.Errorf("draw a nonce: %w", err)
	}
	return nonce, nil
}
