package conductor

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

func workedFrames(f *testing.F) map[string]string {
	f.Helper()
	raw, err := os.ReadFile("testdata/key-management.json")
	if err != nil {
		f.Fatal(err)
	}
	var top struct {
		Frames struct {
			SMAPI map[string]struct {
				TCP string `json:"tcp_hex"`
			} `json:"sm_api"`
		} `json:"frames"`
	}
	if err := json.Unmarshal(raw, &top); err != nil {
		f.Fatal(err)
	}
	out := map[string]string{}
	for name, v := range top.Frames.SMAPI {
		out[name] = v.TCP
	}
	return out
}

// A frame that is read and has its CR is printed again, byte for byte.
func FuzzFrame(f *testing.F) {
	for _, tcp := range workedFrames(f) {
		raw, err := hex.DecodeString(tcp)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{0, 7, 1, 2, 3, 4, 5, 6, '\r'})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReader(bytes.NewReader(in))
		first, err := r.ReadByte()
		if err != nil {
			return
		}
		fr, err := readFrame(first, r, new([]byte))
		if err != nil {
			return
		}
		if fr.line != nil {
			if out := appendFrame(nil, fr.prefix, fr.line, false); !bytes.HasPrefix(in, out) {
				t.Errorf("%X is printed as %X", in, out)
			}
		}
		req, code := parseLine(fr.line)
		if code == tsm.CodeOK && len(req.group) != 2 {
			t.Errorf("group %q", req.group)
		}
	})
}

// Fields that are accepted are printed again as they came.
func FuzzFields(f *testing.F) {
	f.Add("N1~P600727000000000009~N1~N11~N2~N0~H0001~H014EEC~", "NPNNNNHH")
	f.Add("D20251120120000~", "D")
	f.Add("", "")
	f.Add("N1~", "P")
	f.Fuzz(func(t *testing.T, params, want string) {
		if strings.Trim(want, "NPHD") != "" {
			return
		}
		var got fields
		if code := got.decode(params, want); code != tsm.CodeOK {
			return
		}
		var p payload
		for i, kind := range want {
			switch kind {
			case 'N':
				p.number(uint64(got.numbers[i]))
			case 'P':
				p.text(got.texts[i])
			case 'H':
				p.hex(got.octets(i))
			case 'D':
				at, err := time.Parse(dateTime, got.texts[i])
				if err != nil {
					t.Fatal(err)
				}
				p.time(at)
			}
		}
		if string(p) != params {
			t.Errorf("%q is printed as %q", params, string(p))
		}
	})
}

// Whatever a line says, the answer is a line with a right CRC, and the module's
// error is the only thing that a client can learn from nonsense.
func FuzzAnswer(f *testing.F) {
	for name, tcp := range workedFrames(f) {
		raw, err := hex.DecodeString(tcp)
		if err != nil {
			f.Fatal(err)
		}
		if strings.HasSuffix(name, "_req") {
			f.Add(string(raw[8 : len(raw)-5]))
		}
	}
	f.Add("SM?KCPKMC.PUBKEY.1;KMCA;CRC0000~")
	f.Add("GL?EC00003abc")
	m := openForFuzz(f)
	f.Fuzz(func(t *testing.T, text string) {
		c := newSession(New(Config{Module: m}), "fuzz")
		line := respondTo(text)
		answer := c.answer(t.Context(), line)
		if len(answer) < 11 {
			t.Fatalf("%q is answered %q", text, answer)
		}
		again := bytes.Replace(answer, []byte("!"), []byte("?"), 1)
		body := answer[:len(answer)-crcSize]
		if want := respondCRC(body); string(answer[len(body):]) != want {
			t.Errorf("%q is answered %q, CRC %s", text, again, want)
		}
	})
}
