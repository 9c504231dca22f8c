package conductor_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/kmc"
	"github.com/tesserae-hsm/tesserae/hsm/keyload"
)

// benchSockets is how many sockets send at once.
const benchSockets = 32

// hammer sends the same frame from many sockets, each waiting for its answers.
func hammer(b *testing.B, r *rig, text, want string) {
	b.Helper()
	frame := frameOf(text)
	b.SetParallelism(benchSockets / 2)
	b.RunParallel(func(pb *testing.PB) {
		c := r.dial()
		for pb.Next() {
			if got := c.exchange(frame); !strings.HasPrefix(string(got[8:]), want) {
				b.Errorf("%s -> %s", text, got[8:])
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}

func creditLine() string {
	return "SM?VCN1~P" + pan + "~N1~N11~N2~N0~H0001~H" + tidOf(noon) + "~"
}

// BenchmarkReferenceEcho is a frame of SM?VC's size, sent there and back.
func BenchmarkReferenceEcho(b *testing.B) {
	r := newRig(b, option{vault: newDisk(b)})
	data := strings.Repeat("x", len(creditLine())-10)
	hammer(b, r, fmt.Sprintf("GL?EC00%03d%s", len(data), data), "GL!EC")
}

// BenchmarkCredit is SM?VC with limits that are debited: each token is on the
// disk before it leaves.
func BenchmarkCredit(b *testing.B) {
	defer func() { b.ReportMetric(1, "ref:Echo") }()
	r := newRig(b, option{vault: newDisk(b)})
	newClient(b, r.address).loadKeys(r, group(201457, func(g *kmc.Group) { g.ULM = 0xFFFFFFFE }))
	b.ResetTimer()
	hammer(b, r, creditLine(), "SM!VC00")
}

// BenchmarkVerify is SM?VT, which writes nothing.
func BenchmarkVerify(b *testing.B) {
	defer func() { b.ReportMetric(1, "ref:Echo") }()
	r := newRig(b, option{vault: newDisk(b)})
	newClient(b, r.address).loadKeys(r, group(201457))
	b.ResetTimer()
	hammer(b, r, "SM?VTN1~P"+pan+"~N1~N11~P58625789986991357486~", "SM!VT00")
}

// BenchmarkKeyLoad is SM?KL of one key after another, each durable.
func BenchmarkKeyLoad(b *testing.B) {
	defer func() { b.ReportMetric(1, "ref:Echo") }()
	r := newRig(b, option{vault: newDisk(b)})
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
