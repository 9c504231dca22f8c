package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sealed"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// openKeys makes the log's key, which lives as long as the partition, reads or
// makes the services' host keys, and has the unit certify all of them.
func (p *partition) openKeys(ctx context.Context, partitionKey []byte, services []string) error {
	seed, err := sealed.Derive(partitionKey, "tesserae audit log key v1")
	if err != nil {
		return err
	}
	defer clear(seed)
	logKey := ed25519.NewKeyFromSeed(seed)
	seeds, err := hostSeeds(ctx, p.store, services)
	if err != nil {
		return err
	}
	names := append([]string{serviceAuditLog}, services...)
	signers := make([]ssh.Signer, len(names))
	ask := make([]hsmapi.HostKey, len(names))
	for i, name := range names {
		key := logKey
		if i > 0 {
			key = ed25519.NewKeyFromSeed(seeds[name])
		}
		if signers[i], err = ssh.NewSignerFromKey(key); err != nil {
			return errkind.Errorf(errkind.Internal, "host key of %s: %w", name, err)
		}
		ask[i] = hsmapi.HostKey{Service: name, Key: signers[i].PublicKey()}
	}
	certs, err := p.channel.CertifyHosts(ctx, ask...)
	if err != nil {
		return errkind.Errorf(errkind.Of(err), "certify the host keys: %w", err)
	}
	p.hosts = make(map[string]ssh.Signer, len(services))
	for i, name := range names[1:] {
		if p.hosts[name], err = ssh.NewCertSigner(certs[i+1], signers[i+1]); err != nil {
			return errkind.Errorf(errkind.Integrity, "host certificate of %s: %w", name, err)
		}
	}
	p.log, err = auditlog.New(auditlog.Config{
		Origin:      "tesserae/" + p.opened.Identity.ESN + "/" + p.opened.UUID,
		Key:         logKey,
		Certificate: string(ssh.MarshalAuthorizedKey(certs[0])),
	})
	return err
}

// hostSeeds reads the stored seeds and makes those that are missing, durably
// before they are used.
func hostSeeds(ctx context.Context, s *store.Store, services []string) (map[string][]byte, error) {
	seeds := map[string][]byte{}
	var missing []string
	err := s.View(ctx, func(tx *store.Tx) error {
		for _, service := range services {
			seed, err := tx.Bucket(bucketHost).Get([]byte(service))
			switch {
			case err != nil:
				return err
			case seed == nil:
				missing = append(missing, service)
			case len(seed) != ed25519.SeedSize:
				return errkind.Errorf(errkind.Integrity, "stored host key of %s is malformed", service)
			default:
				seeds[service] = append([]byte(nil), seed...)
			}
		}
		return nil
	})
	if err != nil || len(missing) == 0 {
		return seeds, err
	}
	for _, service := range missing {
		seed := make([]byte, ed25519.SeedSize)
		_, _ = rand.Read(seed) // never fails: crypto/rand ends the process instead
		seeds[service] = seed
	}
	return seeds, s.Update(ctx, func(tx *store.Tx) error {
		for _, service := range missing {
			if err := tx.Bucket(bucketHost).Put([]byte(service), seeds[service]); err != nil {
				return err
			}
		}
		return nil
	})
}

func keyLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}
