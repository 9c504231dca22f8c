package registry

import (
	"crypto/tls"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

const (
	dialTimeout = 30 * time.Second
	// pingAfter is the most often that a member lets its clients ask whether it is
	// there still; one that does not say so within pingTimeout is left for another.
	pingAfter   = 5 * time.Second
	pingTimeout = 2 * time.Second
	// lastRedial is the longest pause before a member that is away is tried again.
	lastRedial = 2 * time.Second
)

// Dial makes a client of the etcd cluster at endpoints; security is nil for one
// without TLS. It is the caller's to close.
func Dial(endpoints []string, security *tls.Config) (*clientv3.Client, error) {
	redial := backoff.DefaultConfig
	redial.BaseDelay, redial.MaxDelay = 100*time.Millisecond, lastRedial
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: security, Logger: zap.NewNop(),
		DialTimeout: dialTimeout, DialKeepAliveTime: pingAfter, DialKeepAliveTimeout: pingTimeout,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: lastRedial})},
	})
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "etcd at %v: %w", endpoints, err)
	}
	return client, nil
}
