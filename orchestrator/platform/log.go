package platform

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/orchestrator/ledger"
	"github.com/tesserae-hsm/tesserae/orchestrator/unit"
)

const (
	serviceAuditLog = "auditlog" // in the log key's certificate
	logKeyName      = "auditlog"
	checkpointEvery = time.Second
)

// Log is the platform's audit log: who asked for what, on the unit and its VCMs.
type Log struct {
	ledger *ledger.Ledger
	log    *auditlog.Log
	slog   *slog.Logger
	cancel context.CancelFunc
	owned  sync.WaitGroup
}

// OpenLog opens the log in l. Its key is a file beside the ledger, certified by
// the unit.
func OpenLog(ctx context.Context, l *ledger.Ledger, u *unit.Unit, id hsmapi.Identity, log *slog.Logger) (*Log, error) {
	key, err := l.Key(logKeyName)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	cert, err := certify(ctx, u, serviceAuditLog, signer.PublicKey())
	if err != nil {
		return nil, err
	}
	al, err := auditlog.New(auditlog.Config{
		Origin: "tesserae/" + id.ESN + "/platform", Key: key, Certificate: string(ssh.MarshalAuthorizedKey(cert)),
	})
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.Background())
	out := &Log{ledger: l, log: al, slog: log, cancel: cancel}
	out.owned.Go(func() { out.checkpoints(run) })
	return out, nil
}

// Close signs what was appended last.
func (l *Log) Close() {
	l.cancel()
	l.owned.Wait()
	if err := l.checkpoint(context.Background()); err != nil {
		l.slog.Error("last checkpoint of the audit log", "err", err)
	}
}

// Append makes an entry durable.
func (l *Log) Append(ctx context.Context, e auditlog.Entry) error {
	return l.ledger.Update(ctx, func(tx ledger.Tx) error { return l.in(tx, e) })
}

// in makes an entry in the caller's transaction.
func (l *Log) in(tx ledger.Tx, e auditlog.Entry) error {
	_, err := l.log.Append(tx.Log(), e)
	return err
}

func (l *Log) checkpoints(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.log.Grown():
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(checkpointEvery):
		}
		if err := l.checkpoint(ctx); err != nil {
			l.slog.Error("checkpoint of the audit log", "err", err)
		}
	}
}

func (l *Log) checkpoint(ctx context.Context) error {
	return l.ledger.Update(ctx, func(tx ledger.Tx) error {
		_, err := l.log.Checkpoint(tx.Log())
		return err
	})
}

// certify has the unit certify a key of the platform.
func certify(ctx context.Context, u *unit.Unit, service string, key ssh.PublicKey) (cert *ssh.Certificate, err error) {
	err = u.Do(ctx, func(ctx context.Context, c *hsmapi.Client) error {
		cert, err = c.CertifyHost(ctx, service, key)
		return err
	})
	return cert, err
}
