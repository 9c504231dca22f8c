package prismtoken_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"golang.org/x/sys/unix"

	"github.com/tesserae-hsm/tesserae/hsm/sts"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Each benchmark of issueCreditToken has a reference: as many clients of a
// bare Thrift server over TLS that answers the same message from memory.

func BenchmarkReferenceEcho1(b *testing.B)   { benchmarkEcho(b, 1) }
func BenchmarkReferenceEcho8(b *testing.B)   { benchmarkEcho(b, 8) }
func BenchmarkReferenceEcho64(b *testing.B)  { benchmarkEcho(b, 64) }
func BenchmarkReferenceEcho256(b *testing.B) { benchmarkEcho(b, 256) }

func BenchmarkIssueCreditToken1(b *testing.B)   { benchmarkIssue(b, 1) }
func BenchmarkIssueCreditToken8(b *testing.B)   { benchmarkIssue(b, 8) }
func BenchmarkIssueCreditToken64(b *testing.B)  { benchmarkIssue(b, 64) }
func BenchmarkIssueCreditToken256(b *testing.B) { benchmarkIssue(b, 256) }

// BenchmarkIssueCreditTokenInMemory64 leaves out the disk: its store is on a tmpfs.
func BenchmarkIssueCreditTokenInMemory64(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "tesserae")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	benchmarkIssue(b, 64, func(r *rig) { r.dir = dir })
}

// BenchmarkSignIn is what two cores can sign in while nothing else happens.
func BenchmarkSignIn(b *testing.B) {
	r := newRig(b, func(r *rig) { r.quota = 1 << 30 })
	r.user("vending")
	work(b, r.clients(8), "signins/s", func(c *prismtoken1.TokenApiClient, i int) error {
		_, err := c.SignInWithPassword(context.Background(), "s", "local", "vending", password, prismtoken1.NewSessionOptions())
		return err
	})
}

// BenchmarkSignInWhileVending is the same beside 32 clients that vend.
func BenchmarkSignInWhileVending(b *testing.B) {
	r := newRig(b, func(r *rig) { r.quota = 1 << 30 })
	r.load(group(123456, 1))
	r.user("vending", accounts.RoleIssueCredit)
	token := r.signIn(r.client(), "vending")
	meters := benchMeters(b)
	var stop atomic.Bool
	var vended atomic.Int64
	var wg sync.WaitGroup
	for n, c := range r.clients(32) {
		wg.Go(func() {
			for i := n; !stop.Load(); i += 32 {
				if _, err := c.IssueCreditToken(context.Background(), "m", token, meters[i%len(meters)], 0, 102, 0, 0); err != nil {
					b.Error(err)
					return
				}
				vended.Add(1)
			}
		})
	}
	began := time.Now()
	work(b, r.clients(8), "signins/s", func(c *prismtoken1.TokenApiClient, i int) error {
		_, err := c.SignInWithPassword(context.Background(), "s", "local", "vending", password, prismtoken1.NewSessionOptions())
		return err
	})
	b.ReportMetric(float64(vended.Load())/time.Since(began).Seconds(), "vended-per-s")
	stop.Store(true)
	wg.Wait()
}

func benchmarkIssue(b *testing.B, clients int, change ...func(*rig)) {
	r := newRig(b, append(change, func(r *rig) { r.quota = 1 << 30 })...)
	r.load(group(123456, 1))
	r.user("vending", accounts.RoleIssueCredit)
	token := r.signIn(r.client(), "vending")
	meters := benchMeters(b)
	work(b, r.clients(clients), "tokens/s", func(c *prismtoken1.TokenApiClient, i int) error {
		_, err := c.IssueCreditToken(context.Background(), "m-"+strconv.Itoa(i), token, meters[i%len(meters)], 0, 102, 0, 0)
		return err
	})
	b.ReportMetric(1, "ref:Echo"+strconv.Itoa(clients))
}

// benchMeters are many meters, as a vending system has.
func benchMeters(b *testing.B) []*prismtoken1.MeterConfigIn {
	out := make([]*prismtoken1.MeterConfigIn, 5000)
	for i := range out {
		pan, err := sts.NewPAN("12", strconv.Itoa(10000000+i))
		if err != nil {
			b.Fatal(err)
		}
		out[i] = newMeter(pan.DRN(), 11, 123456)
	}
	return out
}

func (r *rig) clients(n int) []*prismtoken1.TokenApiClient {
	out := make([]*prismtoken1.TokenApiClient, n)
	for i := range out {
		out[i] = r.client()
	}
	return out
}

// work divides b.N calls among clients and reports the rate and latencies.
func work(b *testing.B, clients []*prismtoken1.TokenApiClient, unit string, call func(c *prismtoken1.TokenApiClient, i int) error) {
	var next atomic.Int64
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	b.ReportAllocs()
	runtime.GC() // what came before is not this benchmark's
	b.ResetTimer()
	spent := processorTime(b)
	for _, c := range clients {
		wg.Go(func() {
			var own []time.Duration
			for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
				began := time.Now()
				if err := call(c, i); err != nil {
					b.Error(err)
					return
				}
				own = append(own, time.Since(began))
			}
			mu.Lock()
			all = append(all, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((processorTime(b)-spent).Nanoseconds())/1000/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), unit)
	slices.Sort(all)
	if len(all) > 0 {
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	}
}

// processorTime is what this process has used, client and server together. On a
// machine that does other things too it says more than the rate.
func processorTime(b *testing.B) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// echo answers issueCreditToken from memory.
type echo struct {
	prismtoken1.TokenApi
	answer []*prismtoken1.Token
}

func (e *echo) IssueCreditToken(context.Context, string, string, *prismtoken1.MeterConfigIn, int16, float64, int64, int64) ([]*prismtoken1.Token, error) {
	return e.answer, nil
}

func benchmarkEcho(b *testing.B, clients int) {
	r := newRig(b)
	r.load(group(123456, 1))
	r.user("vending", accounts.RoleIssueCredit)
	token := r.signIn(r.client(), "vending")
	meters := benchMeters(b)
	answer, err := r.client().IssueCreditToken(context.Background(), "m", token, meters[0], 0, 102, 0, 0)
	if err != nil {
		b.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: r.cert.Get})
	if err != nil {
		b.Fatal(err)
	}
	processor := prismtoken1.NewTokenApiProcessor(&echo{answer: answer})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serveEcho(processor, c) })
		}
	})
	r.address = l.Addr().String()
	cs := r.clients(clients)
	work(b, cs, "tokens/s", func(c *prismtoken1.TokenApiClient, i int) error {
		_, err := c.IssueCreditToken(context.Background(), "m-"+strconv.Itoa(i), token, meters[i%len(meters)], 0, 102, 0, 0)
		return err
	})
	l.Close()
	r.hangUp()
	wg.Wait()
}

// serveEcho is the library's own loop over framed, buffered binary Thrift.
func serveEcho(p thrift.TProcessor, c net.Conn) {
	defer c.Close()
	conf := &thrift.TConfiguration{}
	trans := thrift.NewTFramedTransportConf(thrift.NewTBufferedTransport(thrift.NewTSocketFromConnConf(c, conf), 4096), conf)
	proto := thrift.NewTBinaryProtocolConf(trans, conf)
	for {
		if ok, err := p.Process(context.Background(), proto, proto); !ok || err != nil {
			return
		}
	}
}
