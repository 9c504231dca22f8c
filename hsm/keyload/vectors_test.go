package keyload

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"testing"
)

// vectorFile is testdata/key-management.json.
type vectorFile struct {
	Frames struct {
		SMAPI map[string]struct {
			Text, CRC, Serial string
		} `json:"sm_api"`
	} `json:"frames"`
}

func readVectors(t *testing.T) (map[string]string, vectorFile) {
	t.Helper()
	raw, err := os.ReadFile("testdata/key-management.json")
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	var top struct {
		KeyManagement map[string]string `json:"keyManagement"`
	}
	if err := json.Unmarshal(raw, &top); err != nil {
		t.Fatal(err)
	}
	if len(top.KeyManagement) == 0 || len(f.Frames.SMAPI) == 0 {
		t.Fatal("the vector file is not what this test expects")
	}
	return top.KeyManagement, f
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

func private(t *testing.T, s string) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.P384().NewPrivateKey(unhex(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func equal(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("%s = %X, want %s", what, got, want)
	}
}

// The private keys of the vectors are numbers that nobody chose.
func TestVectorPrivateKeys(t *testing.T) {
	t.Parallel()
	v, _ := readVectors(t)
	n, _ := new(big.Int).SetString("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)
	one := big.NewInt(1)
	for name, label := range map[string]string{
		"SM_static": "TEST SM static", "SM_eph": "TEST SM ephemeral",
		"KMC_static": "TEST KMC static", "KMC_eph": "TEST KMC ephemeral",
	} {
		h := sha512.Sum384([]byte(label))
		d := new(big.Int).SetBytes(h[:])
		d.Mod(d, new(big.Int).Sub(n, one)).Add(d, one)
		equal(t, "d_"+name, d.FillBytes(make([]byte, 48)), v["d_"+name])
		equal(t, "Q_"+name, private(t, v["d_"+name]).PublicKey().Bytes(), v["Q_"+name])
	}
}

func TestAgreementVector(t *testing.T) {
	t.Parallel()
	v, _ := readVectors(t)
	request, err := ParseRequestText(v["VKLOAD.REQ.1"])
	if err != nil {
		t.Fatal(err)
	}
	if got := request.Text(); got != v["VKLOAD.REQ.1"] {
		t.Errorf("request is printed as\n%s, want\n%s", got, v["VKLOAD.REQ.1"])
	}
	smStatic, smEphem := private(t, v["d_SM_static"]), private(t, v["d_SM_eph"])
	kmcStatic, kmcEphem := private(t, v["d_KMC_static"]), private(t, v["d_KMC_eph"])
	sides := map[string]Agreement{
		"module": {Request: request, QEV: kmcEphem.PublicKey(), Static: smStatic, Ephem: smEphem,
			Peer: kmcStatic.PublicKey(), PeerEphem: kmcEphem.PublicKey()},
		"KMC": {Request: request, QEV: kmcEphem.PublicKey(), Static: kmcStatic, Ephem: kmcEphem,
			Peer: smStatic.PublicKey(), PeerEphem: smEphem.PublicKey()},
	}
	response, err := ParseResponse(v["VKLOAD.RSP.1"])
	if err != nil {
		t.Fatal(err)
	}
	if got := response.Record().String(); got != v["VKLOAD.RSP.1"] {
		t.Errorf("response is printed as\n%s, want\n%s", got, v["VKLOAD.RSP.1"])
	}
	equal(t, "KDK", extract(unhex(t, v["Ze"]+v["Zs"])), v["KDK"])
	for name, a := range sides {
		equal(t, name+" context", a.context(), v["context"])
		keys, err := a.Keys()
		if err != nil {
			t.Fatal(err)
		}
		equal(t, name+" K_confirm", keys.Confirm, v["K_confirm"])
		equal(t, name+" KEK", keys.KEK, v["KEK"])
		equal(t, name+" KAK", keys.KAK, v["KAK"])
		tag, err := a.ConfirmationTag(keys.Confirm, response.Record())
		if err != nil {
			t.Fatal(err)
		}
		equal(t, name+" MacTag_V", tag, v["mactag_V"])
	}
	digest := sha512.Sum384([]byte(request.Text()))
	equal(t, "SHA-384 of the request", digest[:], v["sha384_req"])
}

func TestWrappedKeyVector(t *testing.T) {
	t.Parallel()
	v, _ := readVectors(t)
	keys := SessionKeys{KEK: unhex(t, v["KEK"]), KAK: unhex(t, v["KAK"])}
	for _, size := range []string{"160", "64"} {
		wrapped, err := WrapKey(keys.KEK, unhex(t, v["VK_"+size]))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "KWP_"+size, wrapped, v["KWP_"+size])
		key, err := UnwrapKey(keys.KEK, wrapped)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "unwrapped "+size, key, v["VK_"+size])
	}
	rec, err := ParseWrappedKey(v["VK.WRAP.1"])
	if err != nil {
		t.Fatal(err)
	}
	if err := Authenticate(rec, "0001", keys.KAK); err != nil {
		t.Error(err)
	}
	if err := Authenticate(rec, "0002", keys.KAK); err == nil {
		t.Error("a record of another session is accepted")
	}
	a, err := Attributes(rec)
	if err != nil {
		t.Fatal(err)
	}
	made, err := WrapVendingKey(keys, "0001", a, unhex(t, v["VK_160"]))
	if err != nil {
		t.Fatal(err)
	}
	if made.String() != v["VK.WRAP.1"] {
		t.Errorf("record is\n%s, want\n%s", made, v["VK.WRAP.1"])
	}
	vk, err := UnwrapVendingKey(rec, keys.KEK)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "vending key", vk, v["VK_160"])
}

func TestLineCRCs(t *testing.T) {
	t.Parallel()
	v, f := readVectors(t)
	if got := CRC16([]byte("123456789")); got != 0xBB3D {
		t.Errorf("CRC16 check value = %04X", got)
	}
	for name, frame := range f.Frames.SMAPI {
		if got := CRC16([]byte(frame.Text)); hex4(got) != frame.CRC {
			t.Errorf("%s: CRC %s, want %s", name, hex4(got), frame.CRC)
		}
	}
	for _, name := range []string{"kc_req", "kr_req", "kl_req"} {
		line := v[name]
		if got := hex4(CRC16([]byte(line[:len(line)-4]))); got != line[len(line)-4:] {
			t.Errorf("%s: CRC %s, want %s", name, got, line[len(line)-4:])
		}
	}
}

func hex4(v uint16) string { return upperHex([]byte{byte(v >> 8), byte(v)}) }
