package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"testing"
)

func FuzzParseRecord(f *testing.F) {
	line, err := Record{Seq: 7, Entry: entry(1)}.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte("0 2026-01-02T03:04:05.000000Z k - -"))
	f.Add([]byte("0 2026-01-02T03:04:05.000000Z k %2D %41 b=1 a=2"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRecord(line)
		if err != nil {
			return
		}
		again, err := r.Marshal()
		if err != nil || !bytes.Equal(again, line) {
			t.Errorf("%q became %q, %v", line, again, err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	l, b := newLog(f), memBucket{}
	fillLog(f, l, b, 3)
	e, err := l.Export(b, 0, false, 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	proof, err := l.Prove(b, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Text)
	f.Add(proof)
	f.Add([]byte(exportTitle + "\nOrigin: o\n\n\n\n"))
	key := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	f.Fuzz(func(t *testing.T, text []byte) {
		// Who does not hold the key can only make what differs in the certificate line.
		strip := func(p []byte) []byte {
			head, rest, _ := bytes.Cut(p, []byte("\n\n"))
			head, _, _ = bytes.Cut(head, []byte("\nCertificate: "))
			return append(append(bytes.Clone(head), "\n\n"...), rest...)
		}
		if _, err := Verify(text, key); err == nil && !bytes.Equal(strip(text), strip(e.Text)) {
			t.Errorf("forged export:\n%s", text)
		}
		if _, err := VerifyProof(text, key); err == nil && !bytes.Equal(strip(text), strip(proof)) {
			t.Errorf("forged proof:\n%s", text)
		}
		if _, err := ParseCheckpoint(text, key); err == nil && !bytes.Contains(text, []byte(l.Origin())) {
			t.Errorf("forged checkpoint:\n%s", text)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	l, bucket := newLog(b), memBucket{}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := l.Append(bucket, entry(i)); err != nil {
			b.Fatal(err)
		}
	}
}
