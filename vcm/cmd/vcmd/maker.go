package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/armor"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/licensing/warrant"
)

// transactionKey is the key by which the unit's maker signs transaction
// licences, from the unit's warrant. A unit without one obeys none.
func (p *partition) transactionKey() (*ecdsa.PublicKey, error) {
	id := p.opened.Identity
	if id.Warrant == "" {
		return nil, nil
	}
	root, err := warrant.ParseKey(id.MakerRoot)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "the maker's root: %w", err)
	}
	w, err := warrant.Read([]byte(id.Warrant), root)
	if err != nil {
		return nil, err
	}
	if err := w.Matches(id.ESN, id.UnitKey); err != nil {
		return nil, err
	}
	key, err := warrant.ParseKey(w.TransactionKey)
	if err != nil {
		return nil, errkind.Errorf(errkind.Integrity, "Transaction-Key of the warrant: %w", err)
	}
	public, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return nil, errkind.Errorf(errkind.Integrity, "Transaction-Key of the warrant is %s", key.Type())
	}
	k, ok := public.CryptoPublicKey().(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P384() {
		return nil, errkind.Errorf(errkind.Integrity, "Transaction-Key of the warrant is %s", key.Type())
	}
	return k, nil
}

// attestTimeout bounds the unit's signature.
const attestTimeout = 10 * time.Second

// attest has the unit sign the module's public key record. What it returns goes
// after the record: the signature over the record's line, and the warrant, which
// leads from the maker's root to the unit's key.
func (p *partition) attest(ctx context.Context, record string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, attestTimeout)
	defer cancel()
	line := []byte(record + "\n")
	signature, err := p.unit.now().SignModule(ctx, string(line))
	if err != nil {
		return "", errkind.Errorf(errkind.Of(err), "have the unit sign the module's public key: %w", err)
	}
	signed, err := armor.Attach(line, []byte(signature))
	if err != nil {
		return "", err
	}
	return string(signed[len(line):]) + p.opened.Identity.Warrant, nil
}
