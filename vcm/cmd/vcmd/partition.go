package main

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/keyfd"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// Buckets of the store that this program gives out.
const (
	bucketModule = "security module"
	bucketAudit  = "audit log"
	bucketHost   = "ssh host keys"
)

// serviceAuditLog names the log key's certificate.
const serviceAuditLog = "auditlog"

// openTimeout bounds the calls of hsmd at the start.
const openTimeout = 20 * time.Second

// partition is what the physical module gives a VCM, and the state sealed with it.
type partition struct {
	unit    *unit
	counter *knownCounter
	opened  hsmapi.Opened
	clock   *clock.Offset
	store   *store.Store
	log     *auditlog.Log
	hosts   map[string]ssh.Signer         // host keys, by service
	private map[string]ed25519.PrivateKey // of those and of the log
}

// openPartition takes the key from hsmd, opens the store with it and lets go of
// it: what remains in memory are keys derived from it.
func openPartition(ctx context.Context, start vcmcontrol.Start, dir *os.File, log *slog.Logger) (_ *partition, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	p := &partition{}
	defer func() {
		if err != nil {
			p.close(log)
		}
	}()
	var key *keyfd.Key
	if p.unit, key, err = openUnit(ctx, os.NewFile(vcmcontrol.DeviceFD, "device")); err != nil {
		return nil, err
	}
	defer key.Destroy()
	opened := p.unit.opened
	p.opened = opened
	if opened.UUID != start.UUID || opened.Identity.ESN != start.ESN {
		return nil, errkind.Errorf(errkind.Integrity, "the module opened partition %s of unit %s instead of %s of %s",
			opened.UUID, opened.Identity.ESN, start.UUID, start.ESN)
	}
	p.clock = clock.NewOffset(clock.System(), opened.Time.Offset())
	p.counter = &knownCounter{Counter: p.unit, at: opened.Counter}
	p.store, err = store.Open(ctx, store.Config{
		Dir: dir, Key: key.Bytes(), Counter: p.counter, Quota: start.DiskQuota,
		Cold: cold(), Gather: true, Log: log,
	})
	if err != nil {
		return nil, err
	}
	if err = p.openKeys(ctx, key.Bytes(), sshListeners(start.Listeners)); err != nil {
		return nil, err
	}
	return p, nil
}

// cold are the values that the store does not keep in memory.
func cold() []store.Keys {
	keys := []store.Keys{{Bucket: bucketAudit, Prefix: auditlog.EntryPrefix}, {Bucket: pos.BucketResults, Prefix: pos.ResultPrefix}}
	for _, prefix := range tsm.SecretKeys() {
		keys = append(keys, store.Keys{Bucket: bucketModule, Prefix: prefix})
	}
	return keys
}

// audit appends to the log in the caller's transaction.
func (p *partition) audit(tx *store.Tx, e auditlog.Entry) error {
	_, err := p.log.Append(tx.Bucket(bucketAudit), e)
	return err
}

// checkpoint signs the log as it stands. It may use the store's reserve: a full
// disk is no reason to leave the log unsigned.
func (p *partition) checkpoint(ctx context.Context) error {
	var due bool
	err := p.store.View(ctx, func(tx *store.Tx) (err error) {
		due, err = p.log.Due(tx.Bucket(bucketAudit))
		return err
	})
	if err != nil || !due {
		return err
	}
	return p.store.Shrink(ctx, func(tx *store.Tx) error {
		_, err := p.log.Checkpoint(tx.Bucket(bucketAudit))
		return err
	})
}

// close signs the log's end and gives everything back.
func (p *partition) close(log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	if p.store != nil {
		if p.log != nil && p.store.Failed() == nil {
			if err := p.checkpoint(ctx); err != nil {
				log.Error("last checkpoint", "err", err)
			}
		}
		if err := p.store.Close(); err != nil {
			log.Error("close the store", "err", err)
		}
	}
	if p.unit != nil {
		p.unit.close()
	}
}
