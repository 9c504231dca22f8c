package conductor_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/vcm/conductor"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// hammer sends the same frame from many sockets, each waiting for its answers.
func hammer(b *testing.B, r *rig, sockets int, text, want string) {
	b.Helper()
	frame := frameOf(text)
	conns := make([]*conn, sockets)
	for i := range conns {
		conns[i] = r.dial()
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	b.ResetTimer()
	for _, c := range conns {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if got := c.exchange(frame); !strings.HasPrefix(string(got[8:]), want) {
					b.Errorf("%s -> %s", text, got[8:])
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}

func creditLine() string {
	return "SM?VCN1~P" + pan + "~N1~N11~N2~N0~H0001~H" + tidOf(noon) + "~"
}

// benchmarkEcho is a frame of SM?VC's size, sent there and back.
func benchmarkEcho(b *testing.B, sockets int) {
	r := newRig(b, option{vault: newDisk(b)})
	data := strings.Repeat("x", len(creditLine())-10)
	hammer(b, r, sockets, fmt.Sprintf("GL?EC00%03d%s", len(data), data), "GL!EC")
}

func BenchmarkReferenceEcho1(b *testing.B)  { benchmarkEcho(b, 1) }
func BenchmarkReferenceEcho8(b *testing.B)  { benchmarkEcho(b, 8) }
func BenchmarkReferenceEcho64(b *testing.B) { benchmarkEcho(b, 64) }

// benchmarkCredit is SM?VC with limits that are debited: each token and its audit
// entry are on the disk before it leaves.
func benchmarkCredit(b *testing.B, sockets int) {
	defer func() { b.ReportMetric(1, "ref:Echo"+strconv.Itoa(sockets)) }()
	r := newRig(b, option{vault: newDisk(b), module: audited(b), server: manySockets})
	newClient(b, r.address).loadKeys(r, group(201457, func(g *kmc.Group) { g.ULM = 0xFFFFFFFE }))
	hammer(b, r, sockets, creditLine(), "SM!VC00")
}

func BenchmarkCredit1(b *testing.B)  { benchmarkCredit(b, 1) }
func BenchmarkCredit8(b *testing.B)  { benchmarkCredit(b, 8) }
func BenchmarkCredit64(b *testing.B) { benchmarkCredit(b, 64) }

// manySockets makes room for those that vend beside the one that loaded the keys.
func manySockets(c *conductor.Config) { c.MaxSockets = 128 }

// audited lets the module keep its audit log in its store, as a VCM's does.
func audited(b *testing.B) func(*tsm.Config) {
	b.Helper()
	log, err := auditlog.New(auditlog.Config{Origin: "tesserae/bench", Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	if err != nil {
		b.Fatal(err)
	}
	return func(c *tsm.Config) {
		c.Audit = func(tx tsm.Tx, e tsm.Event) error {
			_, err := log.Append(tx.(*store.Bucket).Tx().Bucket("audit"), auditlog.Entry(e))
			return err
		}
	}
}

// BenchmarkVerify is SM?VT, which writes nothing.
func BenchmarkVerify(b *testing.B) {
	defer func() { b.ReportMetric(1, "ref:Echo64") }()
	r := newRig(b, option{vault: newDisk(b), server: manySockets})
	newClient(b, r.address).loadKeys(r, group(201457))
	hammer(b, r, 64, "SM?VTN1~P"+pan+"~N1~N11~P58625789986991357486~", "SM!VT00")
}

// BenchmarkKeyLoad is SM?KL of one key after another, each durable.
func BenchmarkKeyLoad(b *testing.B) {
	defer func() { b.ReportMetric(1, "ref:Echo1") }()
	r := newRig(b, option{vault: newDisk(b), module: audited(b)})
	var groups []kmc.Group
	for i := range 200 {
		groups = append(groups, group(100000+i, func(g *kmc.Group) { g.Key = "" }))
	}
	c := newClient(b, r.address)
	if err := r.kmc.AddGroups(groups); err != nil {
		b.Fatal(err)
	}
	if _, err := r.kmc.AuthoriseAll(moduleID); err != nil {
		b.Fatal(err)
	}
	key, err := r.kmc.PublicKey()
	if err != nil {
		b.Fatal(err)
	}
	request, err := r.module.KeyAgreement(context.Background(), key.Record().String())
	if err != nil {
		b.Fatal(err)
	}
	answer, err := r.kmc.Answer(request, noon)
	if err != nil {
		b.Fatal(err)
	}
	file, err := keyload.ParseKLF(answer.Text)
	if err != nil {
		b.Fatal(err)
	}
	c.must(2, "KR", "P"+file.Response)
	b.ResetTimer()
	for i := range b.N {
		c.must(2, "KL", "PTEST-KMC", "P"+file.Keys[i%len(file.Keys)].String())
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}
