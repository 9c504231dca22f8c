package keyload

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func withCRC(body string) string { return fmt.Sprintf("%sCRC%04X", body, CRC16([]byte(body))) }

func TestParseRecord(t *testing.T) {
	t.Parallel()
	good := []string{"A.1;", "A.1;SGC1;", "A.1;SGNtwo words / and {more};", "x-1,2_;ZZZ0;"}
	for _, body := range good {
		rec, err := ParseRecord(withCRC(body))
		if err != nil {
			t.Errorf("%q: %v", body, err)
		} else if rec.String() != withCRC(body) {
			t.Errorf("%q is printed as %q", body, rec)
		}
	}
	for name, text := range map[string]string{
		"empty":          "",
		"no CRC":         "A.1;SGC1;",
		"wrong CRC":      "A.1;SGC1;CRC0000",
		"lower-case CRC": strings.Replace(withCRC("A.1;SGC2;"), "CRC", "crc", 1),
		"short CRC":      withCRC("A.1;SGC1;")[:15],
		"trailing":       withCRC("A.1;SGC1;") + " ",
		"tilde":          withCRC("A.1;SGN~;"),
		"control":        withCRC("A.1;SGN\x01;"),
		"not ASCII":      withCRC("A.1;SGNé;"),
		"newline":        withCRC("A.1;SGN\n;"),
		"no type":        withCRC(";SGC1;"),
		"bad type":       withCRC(".A;SGC1;"),
		"repeated":       withCRC("A.1;SGC1;SGC2;"),
		"no value":       withCRC("A.1;SGC;"),
		"no field":       withCRC("A.1;;"),
		"lower-case tag": withCRC("A.1;sgc1;"),
		"digit in tag":   withCRC("A.1;S1C1;"),
		"too long":       withCRC("A.1;SGN" + strings.Repeat("x", maxRecord) + ";"),
	} {
		if rec, err := ParseRecord(text); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, rec, err)
		}
	}
}

func TestFieldOrder(t *testing.T) {
	t.Parallel()
	v, _ := readVectors(t)
	good := v["VKLOAD.RSP.1"]
	swapped := strings.Replace(good[:strings.LastIndex(good, "CRC")], "SPN1;KMCTEST-KMC;", "KMCTEST-KMC;SPN1;", 1)
	if _, err := ParseResponse(withCRC(swapped)); !errors.Is(err, ErrFormat) {
		t.Errorf("fields out of order: %v", err)
	}
	unknown := strings.Replace(good[:strings.LastIndex(good, "CRC")], "SPN1;", "SPN1;XYZ1;", 1)
	if _, err := ParseResponse(withCRC(unknown)); !errors.Is(err, ErrFormat) {
		t.Errorf("unknown field: %v", err)
	}
	var rectype *TypeError
	if _, err := ParseResponse(v["VKLOAD.REQ.1"]); !errors.As(err, &rectype) || rectype.Got != "VKLOAD.REQ.1" {
		t.Errorf("other type: %v", err)
	}
	var field *FieldError
	missing := strings.Replace(good[:strings.LastIndex(good, "CRC")], "KID0001;", "", 1)
	if _, err := ParseResponse(withCRC(missing)); !errors.As(err, &field) || field.Tag != "KID" {
		t.Errorf("missing field: %v", err)
	}
}

func TestIdent(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"A": true, "PRISM-TEST-KMC": true, "9a_.,-": true, strings.Repeat("x", 40): true,
		"": false, "-A": false, "A B": false, "A;": false, strings.Repeat("x", 41): false, "é": false,
	} {
		if IsIdent(s) != want {
			t.Errorf("IsIdent(%q) = %v", s, !want)
		}
	}
}

// The examples of RFC 4493's algorithm with AES-192 (SP 800-38B, D.2).
func TestCMAC(t *testing.T) {
	t.Parallel()
	key := unhex(t, "8E73B0F7DA0E6452C810F32B809079E562F8EAD2522C6B7B")
	message := unhex(t, "6BC1BEE22E409F96E93D7E117393172AAE2D8A571E03AC9C9EB76FAC45AF8E5130C81C46A35CE411E5FBC1191A0A52EFF69F2445DF4F9B17AD2B417BE66C3710")
	for n, want := range map[int]string{
		0: "D17DDF46ADAACDE531CAC483DE7A9367", 16: "9E99A7BF31E710900662F65E617C5184",
		40: "8A1DE5BE2EB31AAD089A82E6EE908B0E", 64: "A1D5DF0EED790F794D77589659F39A11",
	} {
		got, err := CMAC(key, message[:n])
		if err != nil {
			t.Fatal(err)
		}
		equal(t, fmt.Sprintf("CMAC of %d octets", n), got, want)
	}
	if _, err := CMAC(key[:5], nil); err == nil {
		t.Error("a key of 5 octets is accepted")
	}
}

// The examples of RFC 5649, section 6.
func TestKeyWrap(t *testing.T) {
	t.Parallel()
	kek := unhex(t, "5840DF6E29B02AF1AB493B705BF16EA1AE8338F4DCC176A8")
	for key, want := range map[string]string{
		"C37B7E6492584340BED12207808941155068F738": "138BDEAA9B8FA7FC61F97742E72248EE5AE6AE5360D1AE6A5F54F373FA543B6A",
		"466F7250617369": "AFBEB0F07DFBF5419200F2CCB50BB24F",
	} {
		wrapped, err := WrapKey(kek, unhex(t, key))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "wrapped", wrapped, want)
		for i := range wrapped {
			for bit := range 8 {
				bad := append([]byte(nil), wrapped...)
				bad[i] ^= 1 << bit
				if got, err := UnwrapKey(kek, bad); !errors.Is(err, ErrUnwrap) {
					t.Fatalf("octet %d, bit %d changed: %X, %v", i, bit, got, err)
				}
			}
		}
	}
	for n := 1; n <= 40; n++ {
		key := []byte(strings.Repeat("\x00", n))
		wrapped, err := WrapKey(kek, key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := UnwrapKey(kek, wrapped)
		if err != nil || len(got) != n {
			t.Errorf("%d octets: %d back, %v", n, len(got), err)
		}
	}
	for _, n := range []int{0, 8, 15, 17, maxWrap + 16} {
		if _, err := UnwrapKey(kek, make([]byte, n)); !errors.Is(err, ErrUnwrap) {
			t.Errorf("%d octets: %v", n, err)
		}
	}
	if _, err := WrapKey(kek, nil); err == nil {
		t.Error("nothing was wrapped")
	}
}
