package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"pgregory.net/rapid"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// memBucket is a bucket in memory.
type memBucket map[string][]byte

func (b memBucket) Get(key []byte) ([]byte, error) { return b[string(key)], nil }
func (b memBucket) Put(key, value []byte) error {
	b[string(key)] = bytes.Clone(value)
	return nil
}
func (b memBucket) Delete(key []byte) error { delete(b, string(key)); return nil }
func (b memBucket) Range(prefix []byte, fn func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if strings.HasPrefix(k, string(prefix)) {
			if err := fn([]byte(k), b[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

var seed = bytes.Repeat([]byte{7}, ed25519.SeedSize)

func newLog(t testing.TB) *Log {
	l, err := New(Config{Origin: "tesserae/0000-0000-0001/vcm", Key: ed25519.NewKeyFromSeed(seed)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type fataler interface {
	Helper()
	Fatal(...any)
}

func entry(i int) Entry {
	return Entry{
		Time: time.Date(2026, 1, 2, 3, 4, 5, i*1000, time.UTC), Kind: "vend.credit", Actor: "till 1", Subject: "600727000000000009",
		Detail: map[string]string{"amount": fmt.Sprint(i), "note=": "10 %, ünï\n-", "empty": "", "dash": "-"},
	}
}

func fillLog(t fataler, l *Log, b Bucket, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.Append(b, entry(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func unhex(t testing.TB, s string) []byte {
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The roots of the certificate transparency reference trees.
func TestRootsOfReferenceTrees(t *testing.T) {
	t.Parallel()
	inputs := []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}
	roots := []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var f []hash
	for n := range roots {
		if r := root(f); hex.EncodeToString(r[:]) != roots[n] {
			t.Errorf("root of %d leaves: %x, want %s", n, r, roots[n])
		}
		if n < len(inputs) {
			f = push(f, uint64(n), leafHash(unhex(t, inputs[n])))
		}
	}
}

func TestPairsAreDetail(t *testing.T) {
	t.Parallel()
	e := Entry{Time: time.Unix(1, 0), Kind: "k", Detail: map[string]string{"b": "2"}, Pairs: [][2]string{{"c", "3"}, {"a", "1"}}}
	line, err := Record{Entry: e}.Marshal()
	if err != nil || !strings.HasSuffix(string(line), " a=1 b=2 c=3") {
		t.Errorf("%s, %v", line, err)
	}
	if r, err := ParseRecord(line); err != nil || len(r.Detail) != 3 || r.Pairs != nil {
		t.Errorf("%+v, %v", r, err)
	}
	e.Pairs = append(e.Pairs, [2]string{"b", "4"})
	if _, err := (Record{Entry: e}).Marshal(); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("a name twice: %v", err)
	}
}

func TestExportsChainAndEntriesProve(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l, err := New(Config{Origin: "o", Key: ed25519.NewKeyFromSeed(seed)})
		if err != nil {
			t.Fatal(err)
		}
		b := memBucket{}
		fillLog(t, l, b, rapid.IntRange(1, 70).Draw(t, "entries"))
		var prev *Verified
		for more := true; more; {
			e, err := l.Export(b, 0, false, rapid.IntRange(1, 3000).Draw(t, "bytes"))
			if err != nil {
				t.Fatal(err)
			}
			v, err := Verify(e.Text, l.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			if v.First != e.First || len(v.Records) != e.Count {
				t.Fatalf("exported %d entries from %d, verified %d from %d", e.Count, e.First, len(v.Records), v.First)
			}
			if prev != nil {
				if err := v.Follows(*prev); err != nil {
					t.Fatal(err)
				}
			}
			one := v.First + rapid.Uint64Range(0, v.Last-v.First).Draw(t, "extracted")
			text, err := Extract(e.Text, l.PublicKey(), one)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := VerifyProof(text, l.PublicKey()); err != nil || p.Record.Seq != one || p.Size != v.Last+1 {
				t.Fatalf("extracted entry %d: %+v, %v", one, p, err)
			}
			if _, err := Extract(e.Text, l.PublicKey(), v.Last+1); !errkind.Is(err, errkind.NotFound) {
				t.Fatalf("extracted an entry that is not there: %v", err)
			}
			prev, more = &v, e.More
			if rapid.Bool().Draw(t, "expire") {
				upTo := rapid.Uint64Range(0, v.Last).Draw(t, "up to")
				if _, err := l.Expire(b, upTo); err != nil {
					t.Fatal(err)
				}
			}
		}
		fillLog(t, l, b, rapid.IntRange(0, 20).Draw(t, "further"))
		at, err := l.Position(b)
		if err != nil {
			t.Fatal(err)
		}
		for seq := at.First; seq < at.Next; seq++ {
			proof, err := l.Prove(b, seq)
			if err != nil {
				t.Fatal(err)
			}
			p, err := VerifyProof(proof, l.PublicKey())
			if err != nil || p.Record.Seq != seq || p.Size != at.Next {
				t.Fatalf("entry %d of %+v: %+v, %v", seq, at, p, err)
			}
		}
		if at.First > 0 {
			if _, err := l.Prove(b, at.First-1); !errkind.Is(err, errkind.NotFound) {
				t.Fatalf("proof of an expired entry: %v", err)
			}
		}
		if at.First < at.Next {
			saved, err := l.Export(b, at.First+(at.Next-at.First)/2, true, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(saved.Text, l.PublicKey()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAnyChangeOfAnExportIsFound(t *testing.T) {
	t.Parallel()
	l, b := newLog(t), memBucket{}
	fillLog(t, l, b, 5)
	e, err := l.Export(b, 0, false, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := l.Prove(b, 2)
	if err != nil {
		t.Fatal(err)
	}
	check := func(text []byte, verify func([]byte) (string, error)) {
		cert := bytes.Index(text, []byte("Certificate: ")) // not signed here; CertifiedKey checks it
		certEnd := cert + bytes.IndexByte(text[cert:], '\n')
		for i := range text {
			if i >= cert && i < certEnd {
				continue
			}
			for _, bit := range []byte{1, 0x20, 0x80} {
				bad := bytes.Clone(text)
				bad[i] ^= bit
				if what, err := verify(bad); err == nil {
					t.Errorf("byte %d changed to %q: %s verifies", i, bad[i], what)
				}
			}
			if what, err := verify(text[:i]); err == nil {
				t.Errorf("cut after byte %d: %s verifies", i, what)
			}
		}
	}
	check(e.Text, func(p []byte) (string, error) { _, err := Verify(p, l.PublicKey()); return "export", err })
	check(proof, func(p []byte) (string, error) { _, err := VerifyProof(p, l.PublicKey()); return "proof", err })
	other := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	if _, err := Verify(e.Text, other); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("other key: %v", err)
	}
}

func TestExportAndExpireKeepTheRules(t *testing.T) {
	t.Parallel()
	l, b := newLog(t), memBucket{}
	if e, err := l.Export(b, 0, false, 100); err != nil || e.Count != 0 || e.More {
		t.Errorf("empty log: %+v, %v", e, err)
	}
	fillLog(t, l, b, 3)
	if _, err := l.Expire(b, 0); !errkind.Is(err, errkind.Refused) {
		t.Errorf("expire before export: %v", err)
	}
	if _, err := l.Export(b, 0, false, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Export(b, 1, false, 1<<20); !errkind.Is(err, errkind.Refused) {
		t.Errorf("second export without saved: %v", err)
	}
	if e, err := l.Export(b, 0, false, 1<<20); err != nil || e.Count != 0 {
		t.Errorf("nothing new: %+v, %v", e, err)
	}
	if e, err := l.Export(b, 1, true, 1<<20); err != nil || e.First != 1 || e.Count != 2 {
		t.Errorf("saved: %+v, %v", e, err)
	}
	if _, err := l.Export(b, 9, true, 1<<20); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("beyond the end: %v", err)
	}
	if _, err := l.Expire(b, 3); !errkind.Is(err, errkind.NotFound) {
		t.Errorf("expire what is not there: %v", err)
	}
	if n, err := l.Expire(b, 1); err != nil || n != 2 {
		t.Errorf("expire: %d, %v", n, err)
	}
	if n, err := l.Expire(b, 1); err != nil || n != 0 {
		t.Errorf("expire again: %d, %v", n, err)
	}
	if seq, err := l.Append(b, entry(0)); err != nil || seq != 3 {
		t.Errorf("the sequence went to %d, %v", seq, err)
	}
	if r, err := l.Entry(b, 3); err != nil || r.Kind != "vend.credit" || r.Detail["note="] != entry(0).Detail["note="] {
		t.Errorf("entry 3: %+v, %v", r, err)
	}
}

func TestCheckpointsComeWithGrowth(t *testing.T) {
	t.Parallel()
	l, b := newLog(t), memBucket{}
	if text, err := l.Checkpoint(b); err != nil || text != "" {
		t.Errorf("empty log: %q, %v", text, err)
	}
	fillLog(t, l, b, 1)
	select {
	case <-l.Grown():
	default:
		t.Error("no notice after the first entry")
	}
	if due, err := l.Due(b); err != nil || !due {
		t.Errorf("due = %v, %v", due, err)
	}
	text, err := l.Checkpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ParseCheckpoint([]byte(text), l.PublicKey()); err != nil || c.Size != 1 || c.Origin != l.Origin() {
		t.Errorf("checkpoint %+v, %v", c, err)
	}
	if due, _ := l.Due(b); due {
		t.Error("due after a checkpoint")
	}
	fillLog(t, l, b, CheckpointEvery)
	if due, _ := l.Due(b); due {
		t.Errorf("no checkpoint of its own after %d entries", CheckpointEvery)
	}
	witnessed := text + "— witness.example " + "AAAAAAAA\n"
	if _, err := ParseCheckpoint([]byte(witnessed), l.PublicKey()); err != nil {
		t.Errorf("with a witness's line: %v", err)
	}
}

func TestAFailingBucketIsReported(t *testing.T) {
	t.Parallel()
	l := newLog(t)
	broken := errors.New("broken")
	if _, err := l.Append(failBucket{memBucket{}, broken}, entry(0)); !errors.Is(err, broken) {
		t.Errorf("append: %v", err)
	}
	if _, err := l.Append(memBucket{"state": []byte("x")}, entry(0)); !errkind.Is(err, errkind.Integrity) {
		t.Errorf("damaged state: %v", err)
	}
	if _, err := l.Append(memBucket{}, Entry{Time: time.Now()}); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("no kind: %v", err)
	}
	if _, err := l.Append(memBucket{}, Entry{Time: time.Now(), Kind: strings.Repeat("k", MaxLine)}); !errkind.Is(err, errkind.Invalid) {
		t.Errorf("too long: %v", err)
	}
}

type failBucket struct {
	memBucket
	err error
}

func (b failBucket) Put([]byte, []byte) error { return b.err }

func TestTheKeyIsCertifiedByTheUnit(t *testing.T) {
	t.Parallel()
	sign := func() ssh.Signer {
		_, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ssh.NewSignerFromKey(priv)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	unit, stranger := sign(), sign()
	l := newLog(t)
	key, err := ssh.NewPublicKey(l.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	line := func(by ssh.Signer, certType uint32, principals ...string) string {
		cert := &ssh.Certificate{Key: key, CertType: certType, ValidPrincipals: principals, ValidBefore: ssh.CertTimeInfinity}
		if err := cert.SignCert(rand.Reader, by); err != nil {
			t.Fatal(err)
		}
		return string(ssh.MarshalAuthorizedKey(cert))
	}
	good := line(unit, ssh.HostCert, "esn/vcm/auditlog")
	got, err := CertifiedKey(good, unit.PublicKey(), "esn/vcm/auditlog")
	if err != nil || !got.Equal(l.PublicKey()) {
		t.Fatalf("key %x, %v", got, err)
	}
	for name, err := range map[string]error{
		"stranger":  second(CertifiedKey(line(stranger, ssh.HostCert, "esn/vcm/auditlog"), unit.PublicKey(), "esn/vcm/auditlog")),
		"user cert": second(CertifiedKey(line(unit, ssh.UserCert, "esn/vcm/auditlog"), unit.PublicKey(), "esn/vcm/auditlog")),
		"principal": second(CertifiedKey(good, unit.PublicKey(), "esn/other/auditlog")),
		"any log":   second(CertifiedKey(line(unit, ssh.HostCert), unit.PublicKey(), "esn/vcm/auditlog")),
		"bare key":  second(CertifiedKey(l.KeyLine(), unit.PublicKey(), "esn/vcm/auditlog")),
	} {
		if !errkind.Is(err, errkind.Integrity) {
			t.Errorf("%s: %v", name, err)
		}
	}
	certified, err := New(Config{Origin: "o", Key: ed25519.NewKeyFromSeed(seed), Certificate: good})
	if err != nil {
		t.Fatal(err)
	}
	b := memBucket{}
	fillLog(t, certified, b, 1)
	e, err := certified.Export(b, 0, false, 100)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := Certificate(e.Text); err != nil || c != strings.TrimSpace(good) || c != certified.KeyLine() {
		t.Errorf("certificate in the export: %q, %v", c, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestOriginsAreNoteNames(t *testing.T) {
	t.Parallel()
	for _, o := range []string{"", "a b", "a+b", "a\nb", "é", strings.Repeat("x", 256)} {
		if _, err := New(Config{Origin: o, Key: ed25519.NewKeyFromSeed(seed)}); !errkind.Is(err, errkind.Invalid) {
			t.Errorf("origin %q: %v", o, err)
		}
	}
}
