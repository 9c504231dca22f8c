package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/embedded"
	"github.com/tesserae-hsm/tesserae/orchestrator/registry/registrytest"
)

const esn = "1A2B-3C4D-5E6F"

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func server(t *testing.T, dir string) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func acquire(t *testing.T, c *clientv3.Client, owner string) *registry.Ownership {
	t.Helper()
	return acquireUnit(t, c, esn, owner)
}

func acquireUnit(t *testing.T, c *clientv3.Client, esn, owner string) *registry.Ownership {
	t.Helper()
	o, _, err := registry.Acquire(within(t, time.Minute), c, esn, registry.Claim{Owner: owner, Host: "here"}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = o.Release(ctx)
	})
	return o
}

func TestEtcd(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, func(t *testing.T) registrytest.Backend {
		dir := t.TempDir()
		s := server(t, dir)
		return registrytest.Backend{
			VCMs: registry.NewEtcd(acquire(t, s.Client(), "first")),
			Compact: func(t *testing.T) {
				r, err := s.Client().Get(t.Context(), "x")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Client().Compact(t.Context(), r.Header.Revision); err != nil {
					t.Fatal(err)
				}
			},
			Usurp: func(t *testing.T) {
				if _, err := s.Client().Put(t.Context(), claimKey, `{"owner":"second","host":"there"}`); err != nil {
					t.Fatal(err)
				}
			},
			Crash: func(t *testing.T) registry.VCMs {
				// The claim stays behind, as after kill -9; the same owner takes it over.
				s.Close()
				again := server(t, dir)
				return registry.NewEtcd(acquire(t, again.Client(), "first"))
			},
		}
	})
}

func TestUnitHasOneOwner(t *testing.T) {
	t.Parallel()
	c := server(t, t.TempDir()).Client()
	first := acquire(t, c, "first")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _, err := registry.Acquire(ctx, c, esn, registry.Claim{Owner: "second"}, quiet())
	if !errkind.Is(err, errkind.Unavailable) {
		t.Fatalf("a second owner: %v", err)
	}
	other, cancel2 := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel2()
	o, _, err := registry.Acquire(other, c, "FFFF-FFFF-FFFF", registry.Claim{Owner: "second"}, quiet())
	if err != nil {
		t.Fatalf("another unit: %v", err)
	}
	defer o.Release(context.Background())
	if err := first.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	acquire(t, c, "second")
}

func TestOwnClaimIsTakenOverAtOnce(t *testing.T) {
	t.Parallel()
	c := server(t, t.TempDir()).Client()
	old := registry.NewEtcd(acquire(t, c, "first"))
	o, previous, err := registry.Acquire(t.Context(), c, esn, registry.Claim{Owner: "first", Boot: "b"}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release(context.Background())
	if previous.Owner != "first" || previous.Boot != "" {
		t.Errorf("previous claim %+v", previous)
	}
	// What is left of the former run is fenced off.
	if err := old.Remove(t.Context(), "x", 0); !errors.Is(err, registry.ErrNotOwner) {
		t.Errorf("%v", err)
	}
}

func TestLapsedClaimIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	c := server(t, t.TempDir()).Client()
	o := acquire(t, c, "first")
	v := registry.NewEtcd(o)
	leases, err := c.Leases(t.Context())
	if err != nil || len(leases.Leases) != 1 {
		t.Fatalf("%+v %v", leases, err)
	}
	if _, err := c.Revoke(t.Context(), leases.Leases[0].ID); err != nil {
		t.Fatal(err)
	}
	// By whoever needs it first: a write, or the next renewal.
	if err := v.Remove(t.Context(), "x", 0); err != nil {
		t.Errorf("a write without a claim: %v", err)
	}
	if leases, err = c.Leases(t.Context()); err != nil || len(leases.Leases) != 1 {
		t.Fatalf("%+v %v", leases, err)
	}
	if _, err := c.Revoke(t.Context(), leases.Leases[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := registry.Renew(o); err != nil {
		t.Fatal(err)
	}
	if kv, err := c.Get(t.Context(), claimKey); err != nil || len(kv.Kvs) != 1 {
		t.Errorf("after the renewal: %v %v", kv, err)
	}
}

const claimKey = "/tesserae/1/units/" + esn + "/claim"

// A claim that was renewed, with an answer that got lost: what is in the store is
// ours under a revision that we do not know.
func TestClaimWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	c := server(t, t.TempDir()).Client()
	o := acquire(t, c, "first")
	v := registry.NewEtcd(o)
	for range 2 {
		ours, err := c.Get(t.Context(), claimKey)
		if err != nil {
			t.Fatal(err)
		}
		lease, err := c.Grant(t.Context(), 60)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(t.Context(), claimKey, string(ours.Kvs[0].Value), clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
		registry.Doubt(o)
		if err := v.Remove(t.Context(), "x", 0); err != nil {
			t.Errorf("in doubt: %v", err)
		}
		if err := registry.Renew(o); err != nil {
			t.Fatal(err)
		}
		if err := v.Remove(t.Context(), "x", 0); err != nil {
			t.Errorf("with the claim again: %v", err)
		}
	}
}

// The same suite over the network, as with an external cluster.
func TestExternalEtcd(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, func(t *testing.T) registrytest.Backend {
		dir := t.TempDir()
		c := cluster(t, dir)
		return registrytest.Backend{
			VCMs: registry.NewEtcd(acquire(t, c.client, "first")),
			Compact: func(t *testing.T) {
				r, err := c.client.Get(t.Context(), "x")
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.client.Compact(t.Context(), r.Header.Revision); err != nil {
					t.Fatal(err)
				}
			},
			Usurp: func(t *testing.T) {
				if _, err := c.client.Put(t.Context(), claimKey, `{"owner":"second","host":"there"}`); err != nil {
					t.Fatal(err)
				}
			},
			Crash: func(t *testing.T) registry.VCMs {
				c.close()
				return registry.NewEtcd(acquire(t, cluster(t, dir).client, "first"))
			},
		}
	})
}

// remote is an etcd server reached by a client over a unix socket.
type remote struct {
	client *clientv3.Client
	close  func() // the server, once
}

func cluster(t *testing.T, dir string) remote {
	t.Helper()
	sockets, err := os.MkdirTemp("", "etcd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	self := url.URL{Scheme: "http", Host: "localhost:2380"}
	clients := url.URL{Scheme: "unix", Path: sockets + "/c"}
	c := embed.NewConfig()
	c.Dir, c.Name = dir, "external"
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, []url.URL{self}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	s, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(s.Close)
	t.Cleanup(end)
	<-s.Server.ReadyNotify()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{clients.String()}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return remote{client: client, close: end}
}
