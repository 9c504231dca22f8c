// Package embedded runs etcd inside the orchestrator, for a unit without a
// cluster.
//
// The server listens nowhere: neither for clients nor for peers. Its client
// calls it in the same process, so there is no port to find, no token to steal
// and no certificate to manage. Whoever wants to reach the records from outside
// runs an external cluster and names its endpoints.
package embedded

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	// DefaultQuota bounds the database. 1000 VCM records and the revisions
	// between two compactions take a small part of it.
	DefaultQuota = 256 << 20
	// keepRevisions is how many past revisions a watch may still ask for.
	keepRevisions = "5000"
	startTimeout  = 60 * time.Second
)

// Config says where the server keeps its data.
type Config struct {
	Dir   string
	Quota int64 // bytes; 0 is DefaultQuota
	Log   *slog.Logger
}

// Server is a running etcd of one member.
type Server struct {
	etcd   *embed.Etcd
	client *clientv3.Client
	once   sync.Once
}

// Start runs etcd on cfg.Dir and waits until it serves.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "embedded etcd: %w", err)
	}
	c, err := config(cfg)
	if err != nil {
		return nil, err
	}
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "embedded etcd in %s: %w", cfg.Dir, err)
	}
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Close()
		return nil, errkind.Errorf(errkind.Unavailable, "embedded etcd in %s: %w", cfg.Dir, err)
	case <-timeout.C:
		e.Close()
		return nil, errkind.Errorf(errkind.Unavailable, "embedded etcd in %s: not ready within %s", cfg.Dir, startTimeout)
	case <-ctx.Done():
		e.Close()
		return nil, context.Cause(ctx)
	}
	return &Server{etcd: e, client: v3client.New(e.Server)}, nil
}

// Client calls the server in-process. It lives as long as the server.
func (s *Server) Client() *clientv3.Client { return s.client }

// Close ends the server; what was acknowledged is on disk already. Closing
// again does nothing.
func (s *Server) Close() {
	s.once.Do(func() {
		_ = s.client.Close() // only ever says that its context is over
		s.etcd.Close()
	})
}

func config(cfg Config) (*embed.Config, error) {
	c := embed.NewConfig()
	c.Name = "tesserae"
	c.Dir = filepath.Join(cfg.Dir, "member")
	c.QuotaBackendBytes = cfg.Quota
	if c.QuotaBackendBytes == 0 {
		c.QuotaBackendBytes = DefaultQuota
	}
	c.AutoCompactionMode = "revision"
	c.AutoCompactionRetention = keepRevisions
	c.MaxRequestBytes = 1 << 20
	c.SnapshotCount = 1000         // so many records are kept in memory besides the database
	c.SnapshotCatchUpEntries = 100 // there is no other member that could lag behind
	// A member needs a name for itself in its cluster; nothing listens there.
	self := url.URL{Scheme: "http", Host: "localhost:2380"}
	c.ListenPeerUrls, c.ListenClientUrls = nil, nil
	c.AdvertisePeerUrls, c.AdvertiseClientUrls = []url.URL{self}, nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(quiet{log: cfg.Log}))
	return c, nil
}

// quiet passes etcd's errors on to the program's log and drops the rest: a
// member alone warns about many things that cannot matter to it.
type quiet struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func (q quiet) Enabled(l zapcore.Level) bool { return l >= zapcore.ErrorLevel }

func (q quiet) With(f []zapcore.Field) zapcore.Core {
	q.fields = append(append([]zapcore.Field(nil), q.fields...), f...)
	return q
}

func (q quiet) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if q.Enabled(e.Level) {
		return c.AddCore(e, q)
	}
	return c
}

func (q quiet) Write(e zapcore.Entry, fields []zapcore.Field) error {
	m := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field(nil), q.fields...), fields...) {
		f.AddTo(m)
	}
	args := make([]any, 0, 2*len(m.Fields))
	for k, v := range m.Fields {
		args = append(args, slog.Any(k, v))
	}
	q.log.Error("etcd: "+e.Message, args...)
	return nil
}

func (q quiet) Sync() error { return nil }
