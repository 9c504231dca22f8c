package fakeunit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/monitor"
	"github.com/tesserae-hsm/tesserae/internal/api/gen/setup"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc/sshrpctest"
	"github.com/tesserae-hsm/tesserae/licensing"
	"github.com/tesserae-hsm/tesserae/tenant/request"
)

// platform is the setup service.
type platform struct{ *Unit }

func (p *platform) Info(context.Context) (*setup.Info, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.restarting {
		p.restarting = false
		return nil, errkind.Errorf(errkind.Unavailable, "the platform starts over")
	}
	network := "127.77.0.0/16"
	if p.network != nil && p.resets > 0 && p.network.Address != "" {
		network = p.network.Address
	}
	return &setup.Info{
		Esn: p.ESN, ModuleId: "00000100", FirmwareId: "STS64V01", HardwareId: "TSM500E1", Mode: "operational",
		Features: int64(licensing.STSVending | licensing.STSEA11 | licensing.HSMSpeed0), MaxCreatableVcms: 5, MaxActiveVcms: int32(1 + len(p.licences)),
		CreatedVcms: int32(len(p.vcms)), ModuleTime: 1_800_000_000, HostTime: 1_800_000_001, Network: network, StaTables: "iec-sample", Version: "test",
	}, nil
}

func (p *platform) ApplyLicence(_ context.Context, file []byte) (*setup.LicenceResult_, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, err := licensing.ReadLicence(file, p.Root.PublicKey(), p.ESN)
	if err != nil {
		return nil, err
	}
	p.licences = append(p.licences, l.Value())
	return &setup.LicenceResult_{Type: string(l.Type), Value: l.Value(), Warnings: []string{"1 VCM is active"}}, nil
}

func (p *platform) SetNetwork(_ context.Context, n *setup.Network) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.network = n
	return nil
}

func (p *platform) Reset(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resets++
	p.restarting = true
	return nil
}

// SetTime refuses what lies before the fake's own time.
func (p *platform) SetTime(_ context.Context, at int64, adjust bool) (*setup.Clocks, error) {
	if at < 1_700_000_000 {
		return nil, errkind.Errorf(errkind.Invalid, "the clock cannot go back to %d", at)
	}
	return &setup.Clocks{ModuleTime: at, HostTime: 1_800_000_001}, nil
}

// FactoryState forgets the VCMs.
func (p *platform) FactoryState(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, v := range p.vcms {
		if v.wire.State == "running" {
			return errkind.Errorf(errkind.Mode, "VCM %s is running; stop it first", id)
		}
	}
	clear(p.vcms)
	p.licences, p.network = nil, nil
	p.restarting = true
	return nil
}

// logs is a monitor service over a real signed log of three entries.
type logs struct {
	mu     sync.Mutex
	log    *auditlog.Log
	bucket memory
}

func newMonitor(t testing.TB, u *Unit, id string) *logs {
	t.Helper()
	private := sshrpctest.Ed25519(t)
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert := sshrpctest.Certificate(t, u.Key, signer.PublicKey(), hsmapi.Principal(u.ESN, id, "auditlog"))
	log, err := auditlog.New(auditlog.Config{Origin: "tesserae/" + u.ESN + "/" + id, Key: ed25519.PrivateKey(private), Certificate: request.KeyText(cert)})
	if err != nil {
		t.Fatal(err)
	}
	m := &logs{log: log, bucket: memory{}}
	for _, kind := range []string{"vcm.start", "user.password", "vend.credit"} {
		e := auditlog.Entry{Time: time.Unix(1_800_000_000, 0), Kind: kind, Actor: "test", Subject: "x", Detail: map[string]string{"a": "b"}}
		if _, err := m.log.Append(m.bucket, e); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func (m *logs) EnvStats(context.Context) (*monitor.EnvStats, error) {
	return &monitor.EnvStats{SystemTime: 1_800_000_000, UptimeSeconds: 60, MemUsed: 3 << 20, DiskUsed: 64 << 10, CpuSeconds: 0.5}, nil
}

// LogExport gives one entry at a time, so that tools have pieces to join.
func (m *logs) LogExport(_ context.Context, from int64, saved bool) (*monitor.LogExport, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, err := m.log.Export(m.bucket, uint64(from), saved, 1)
	if err != nil {
		return nil, err
	}
	return &monitor.LogExport{FirstSeq: int64(e.First), LastSeq: int64(e.First) + int64(e.Count) - 1, Text: e.Text, More: e.More}, nil
}

func (m *logs) LogExpire(_ context.Context, seq int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if seq < 0 {
		return 0, errkind.Errorf(errkind.Invalid, "sequence number %d is negative", seq)
	}
	n, err := m.log.Expire(m.bucket, uint64(seq))
	return int64(n), err
}

func (m *logs) LogKey(context.Context) (string, error) { return m.log.KeyLine(), nil }

// memory is a bucket.
type memory map[string][]byte

func (m memory) Get(key []byte) ([]byte, error) { return m[string(key)], nil }

func (m memory) Put(key, value []byte) error {
	m[string(key)] = bytes.Clone(value)
	return nil
}

func (m memory) Delete(key []byte) error {
	delete(m, string(key))
	return nil
}

func (m memory) Range(prefix []byte, fn func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if bytes.HasPrefix([]byte(k), prefix) {
			if err := fn([]byte(k), m[k]); err != nil {
				return err
			}
		}
	}
	return nil
}
