package sts

import (
	"crypto/des"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"math/bits"
	"testing"

	"pgregory.net/rapid"
)

// Tests of the parts that are not exported.

func TestCheckFieldExamples(t *testing.T) {
	t.Parallel()
	const block = 0x004A2D900FF2 << 16
	if got := crc(0, block, false); got != 0x0FFA {
		t.Errorf("CRC %04X", got)
	}
	if got := crc(0, block, true); got != 0x7BC4 {
		t.Errorf("CRC_C %04X", got)
	}
}

// TestMISTYSubstitutions compares the arithmetic forms with the tables.
func TestMISTYSubstitutions(t *testing.T) {
	t.Parallel()
	for x, want := range misty7 {
		if got := s7(uint64(x)); got != uint64(want) {
			t.Errorf("S7(%02X) = %02X, want %02X", x, got, want)
		}
	}
	for x, want := range misty9 {
		if got := s9(uint64(x)); got != uint64(want) {
			t.Errorf("S9(%03X) = %03X, want %03X", x, got, want)
		}
	}
}

// TestMISTYSchedule is the K' schedule of the RFC's key.
func TestMISTYSchedule(t *testing.T) {
	t.Parallel()
	want := []uint16{0xCF51, 0x8E7F, 0x5E29, 0x673A, 0xCDBC, 0x07D6, 0xBF35, 0x5E11}
	k := mistyTables{}.schedule(0x0011223344556677, 0x8899AABBCCDDEEFF)
	if k != (mistyConstantTime{}).schedule(0x0011223344556677, 0x8899AABBCCDDEEFF) {
		t.Error("the variants expand the key differently")
	}
	for i, w := range want {
		if k[8+i] != w {
			t.Errorf("EK[%d] = %04X, want %04X", 8+i, k[8+i], w)
		}
	}
}

// TestSTAIntermediates are the values of the standard's example after the first
// substitution and permutation.
func TestSTAIntermediates(t *testing.T) {
	t.Parallel()
	const key, block = 0x0ABC12DEF3456789, 0x0B19EB230100C207
	if k := bits.RotateLeft64(^uint64(key), -12); k != 0x876F543ED210CBA9 {
		t.Errorf("k0 %016X", k)
	}
	k := bits.RotateLeft64(^uint64(key), -15)
	c := IECSample().slow
	if s := c.substitute(k, block); s != 0x6DAD7D846ACC076E {
		t.Errorf("after substitution %016X", s)
	}
	const after = 0xCEA6B17D9D323631
	if p := c.net.apply(0x6DAD7D846ACC076E); p != after {
		t.Errorf("after permutation %016X", p)
	}
	f := IECSample().fast
	if r := f.round(&f.move, k, block); r != after {
		t.Errorf("table round %016X", r)
	}
}

// TestCipherVariants compares both variants under random keys and, for STA,
// random table sets, and undoes what was done.
func TestCipherVariants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.Uint64()
		hi, lo, x := word.Draw(t, "hi"), word.Draw(t, "lo"), word.Draw(t, "block")
		tables := drawTables(t)
		a := tables.fast.encrypt(lo, x)
		if b := tables.slow.encrypt(lo, x); a != b {
			t.Fatalf("STA %016X, constant-time %016X", a, b)
		}
		if p, q := tables.fast.decrypt(lo, a), tables.slow.decrypt(lo, a); p != x || q != x {
			t.Fatalf("STA undone to %016X, constant-time %016X", p, q)
		}
		a = mistyTables{}.encrypt(hi, lo, x)
		if b := (mistyConstantTime{}).encrypt(hi, lo, x); a != b {
			t.Fatalf("MISTY1 %016X, constant-time %016X", a, b)
		}
		if p, q := (mistyTables{}).decrypt(hi, lo, a), (mistyConstantTime{}).decrypt(hi, lo, a); p != x || q != x {
			t.Fatalf("MISTY1 undone to %016X, constant-time %016X", p, q)
		}
	})
}

func drawTables(t *rapid.T) *Tables {
	var s0, s1 [16]byte
	var perm [64]byte
	for i, v := range rapid.Permutation(numbers(16)).Draw(t, "s0") {
		s0[i], s1[v] = v, byte(i)
	}
	copy(perm[:], rapid.Permutation(numbers(64)).Draw(t, "perm"))
	tables, err := NewTables("drawn", s0, s1, perm)
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

func numbers(n int) []byte {
	all := make([]byte, n)
	for i := range all {
		all[i] = byte(i)
	}
	return all
}

func TestBitNetwork(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var to [64]byte
		copy(to[:], rapid.Permutation(numbers(64)).Draw(t, "to"))
		net := newBitNetwork(to)
		for from, place := range to {
			if got := net.apply(1 << from); got != 1<<place {
				t.Fatalf("bit %d goes to %016X, want bit %d", from, got, place)
			}
			if got := net.reverse(1 << place); got != 1<<from {
				t.Fatalf("bit %d comes from %016X, want bit %d", place, got, from)
			}
		}
	})
}

// TestDES compares with the standard library.
func TestDES(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key, block := rapid.Uint64().Draw(t, "key"), rapid.Uint64().Draw(t, "block")
		c, err := des.NewCipher(binary.BigEndian.AppendUint64(nil, key))
		if err != nil {
			t.Fatal(err)
		}
		want := binary.BigEndian.AppendUint64(nil, block)
		c.Encrypt(want, want)
		s := newDES(key)
		if got := s.encrypt(block); got != binary.BigEndian.Uint64(want) {
			t.Fatalf("%016X, want %X", got, want)
		}
	})
}

// TestHMAC compares with the standard library, whose saved hash states the
// precomputation relies on.
func TestHMAC(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "key")
		message := rapid.SliceOfN(rapid.Byte(), 0, 120).Draw(t, "message")
		h := hmac.New(sha256.New, key)
		h.Write(message)
		d := newDKGA04([20]byte(key))
		if got := d.mac(message); [32]byte(h.Sum(nil)) != got {
			t.Fatalf("%X", got)
		}
	})
}

// big128 is the oracle of the 128-bit arithmetic.
func big128(u u128) *big.Int {
	n := new(big.Int).SetUint64(u.hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(u.lo))
}

// TestCurrencyArithmetic compares the 20-bit amount with its definition in
// unbounded integers: for every value the code is the smallest that is at least
// the value.
func TestCurrencyArithmetic(t *testing.T) {
	t.Parallel()
	// all amounts in ascending order of code
	amounts := make([]*big.Int, 1<<19)
	ten, first, step := big.NewInt(10), new(big.Int), big.NewInt(1)
	for e := range 32 {
		for m := range 1 << 14 {
			n := new(big.Int).Mul(step, big.NewInt(int64(m)))
			amounts[e<<14|m] = n.Add(n, first)
		}
		first = new(big.Int).Add(first, new(big.Int).Mul(step, big.NewInt(1<<14)))
		step = new(big.Int).Mul(step, ten)
	}
	for code, want := range amounts {
		c := Amount20(code).Currency()
		if big128(u128{c.hi, c.lo}).Cmp(want) != 0 || c.negative {
			t.Fatalf("%05X is %v, want %v", code, c.Units(), want)
		}
		n := Amount20(code | 1<<19).Currency()
		if n.hi != c.hi || n.lo != c.lo || n.negative != (code != 0) {
			t.Fatalf("%05X is %v", code|1<<19, n.Units())
		}
		for _, delta := range []int64{-1, 0, 1} {
			near := new(big.Int).Add(want, big.NewInt(delta))
			if near.Sign() < 0 {
				continue
			}
			for _, negative := range []bool{false, true} {
				v, err := ParseCurrencyUnits(near.String())
				if err != nil {
					t.Fatal(err)
				}
				v.negative = negative && near.Sign() > 0
				expected := uint32(code)
				switch {
				case delta == 1 && (!negative || code < 1<<14), delta == -1 && (negative || code <= 1<<14):
					expected += uint32(delta)
				}
				if v.negative && expected != 0 {
					expected |= 1 << 19
				}
				got, err := EncodeCurrency(v)
				if code == 1<<19-1 && delta == 1 {
					if err == nil {
						t.Fatalf("%s encoded beyond the field", v.Units())
					}
					continue
				}
				if err != nil || uint32(got) != expected {
					t.Fatalf("%s: %05X, %v, want %05X", v.Units(), uint32(got), err, expected)
				}
			}
		}
	}
}
