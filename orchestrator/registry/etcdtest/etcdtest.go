// Package etcdtest runs an etcd cluster, each member a process of its own, for
// tests that kill members.
package etcdtest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// mark is the name under which a test binary is a member.
const mark = "etcdtest-member"

// startTimeout is the patience with a cluster that has to elect a leader.
const startTimeout = 60 * time.Second

// Main makes this process a member of a cluster if it was started as one; it does
// not return then. A test binary that uses this package calls it first of all.
func Main() {
	if os.Args[0] != mark {
		return
	}
	if err := member(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// member runs one member until it is killed; with certificates its clients need
// one, too.
func member(name, dir, host, cluster, certificates string) error {
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialCluster = name, dir, cluster
	clients, peers := []url.URL{*clientURL(host, certificates != "")}, []url.URL{*peerURL(host)}
	if certificates != "" {
		f := files(certificates)
		c.ClientTLSInfo = transport.TLSInfo{CertFile: f.Cert, KeyFile: f.Key, TrustedCAFile: f.CA, ClientCertAuth: true}
	}
	c.ListenClientUrls, c.AdvertiseClientUrls = clients, clients
	c.ListenPeerUrls, c.AdvertisePeerUrls = peers, peers
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	return <-e.Err()
}

func clientURL(host string, secure bool) *url.URL {
	u := &url.URL{Scheme: "http", Host: host + ":2379"}
	if secure {
		u.Scheme = "https"
	}
	return u
}

func peerURL(host string) *url.URL { return &url.URL{Scheme: "http", Host: host + ":2380"} }

// Cluster is a running cluster.
type Cluster struct {
	t       testing.TB
	dir     string
	secure  string // folder of certificates, "" without TLS
	initial string
	members []*process
}

type process struct {
	name, host string
	cmd        *exec.Cmd
	said       bytes.Buffer
	done       chan struct{}
}

// Start starts n members on loopback addresses that nobody uses, and waits until
// they serve. They end with the test.
func Start(t testing.TB, n int) *Cluster {
	t.Helper()
	return start(t, n, "")
}

// StartTLS is Start with TLS towards clients, who need a certificate.
func StartTLS(t testing.TB, n int) (*Cluster, Files) {
	t.Helper()
	dir := t.TempDir()
	return start(t, n, dir), files(dir)
}

func start(t testing.TB, n int, certificates string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir(), secure: certificates}
	prefix := freeNet(t, n)
	var initial []string
	var hosts []net.IP
	for i := range n {
		p := &process{name: fmt.Sprintf("m%d", i), host: fmt.Sprintf("%s.%d", prefix, i+1)}
		c.members = append(c.members, p)
		initial = append(initial, p.name+"="+peerURL(p.host).String())
		hosts = append(hosts, net.ParseIP(p.host))
	}
	if certificates != "" {
		if err := certify(certificates, hosts); err != nil {
			t.Fatal(err)
		}
	}
	c.initial = strings.Join(initial, ",")
	t.Cleanup(func() {
		for i := range c.members {
			c.Kill(i)
		}
	})
	for i := range c.members {
		c.Restart(i)
	}
	c.Await()
	return c
}

// freeNet draws the first three bytes of loopback addresses that have the ports.
func freeNet(t testing.TB, n int) string {
	for range 100 {
		prefix := fmt.Sprintf("127.%d.%d", 200+rand.IntN(50), rand.IntN(256))
		free := true
		for i := range n {
			for _, u := range []*url.URL{clientURL(fmt.Sprintf("%s.%d", prefix, i+1), false), peerURL(fmt.Sprintf("%s.%d", prefix, i+1))} {
				l, err := net.Listen("tcp", u.Host)
				if free = free && err == nil; err == nil {
					l.Close()
				}
			}
		}
		if free {
			// A process that is being started has our files until its exec.
			syscall.ForkLock.RLock()
			defer syscall.ForkLock.RUnlock()
			return prefix
		}
	}
	t.Fatal("no free loopback network for an etcd cluster")
	return ""
}

// Len is the number of members.
func (c *Cluster) Len() int { return len(c.members) }

// Endpoints is the value of --etcd-endpoints.
func (c *Cluster) Endpoints() string {
	var all []string
	for _, p := range c.members {
		all = append(all, clientURL(p.host, c.secure != "").String())
	}
	return strings.Join(all, ",")
}

// Client is a client of the cluster.
func (c *Cluster) Client() *clientv3.Client {
	c.t.Helper()
	cfg := clientv3.Config{Endpoints: strings.Split(c.Endpoints(), ","), DialTimeout: startTimeout, Logger: zap.NewNop()}
	if c.secure != "" {
		var err error
		if cfg.TLS, err = files(c.secure).client(); err != nil {
			c.t.Fatal(err)
		}
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { client.Close() })
	return client
}

// Await waits until every member that runs follows a leader.
func (c *Cluster) Await() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), startTimeout)
	defer cancel()
	client := c.Client()
	for _, p := range c.members {
		for p.cmd != nil {
			try, stop := context.WithTimeout(ctx, time.Second)
			status, err := client.Status(try, clientURL(p.host, c.secure != "").String())
			stop()
			if err == nil && status.Leader != 0 {
				break
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				c.t.Fatalf("%s does not serve: %v\n%s", p.name, err, &p.said)
			}
		}
	}
}

// Leader returns which member leads.
func (c *Cluster) Leader() int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), startTimeout)
	defer cancel()
	client := c.Client()
	for {
		for i, p := range c.members {
			try, stop := context.WithTimeout(ctx, time.Second)
			status, err := client.Status(try, clientURL(p.host, c.secure != "").String())
			stop()
			if err == nil && status.Leader == status.Header.MemberId {
				return i
			}
		}
		if ctx.Err() != nil {
			c.t.Fatal("no member leads")
		}
	}
}

// Pause stops a member where it is, with its connections open, until Resume.
func (c *Cluster) Pause(i int) { c.signal(i, syscall.SIGSTOP) }

// Resume lets a member go on.
func (c *Cluster) Resume(i int) { c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, s syscall.Signal) {
	c.t.Helper()
	if err := c.members[i].cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// Kill ends a member with SIGKILL.
func (c *Cluster) Kill(i int) {
	if p := c.members[i]; p.cmd != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
		p.cmd = nil
	}
}

// Restart starts a member that was killed.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	p := c.members[i]
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{mark, p.name, filepath.Join(c.dir, p.name), p.host, c.initial, c.secure}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = &p.said
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	p.cmd, p.done = cmd, make(chan struct{})
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // killed, or it said why
	}()
}
