package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// hostKeys returns each service's host key with a fresh certificate of the
// unit. Keys are made at the service's first start and kept in the store.
func hostKeys(ctx context.Context, p *partition, services []string) (map[string]ssh.Signer, error) {
	seeds, err := hostSeeds(ctx, p.store, services)
	if err != nil {
		return nil, err
	}
	out := make(map[string]ssh.Signer, len(services))
	for _, service := range services {
		signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seeds[service]))
		if err != nil {
			return nil, errkind.Errorf(errkind.Internal, "host key of %s: %w", service, err)
		}
		cert, err := p.channel.CertifyHost(ctx, service, signer.PublicKey())
		if err != nil {
			return nil, errkind.Errorf(errkind.Of(err), "certify the host key of %s: %w", service, err)
		}
		if out[service], err = ssh.NewCertSigner(cert, signer); err != nil {
			return nil, errkind.Errorf(errkind.Integrity, "host certificate of %s: %w", service, err)
		}
	}
	return out, nil
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
