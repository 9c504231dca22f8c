package keyload

import (
	"crypto/sha512"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Types of the records that frame a KLF.
const (
	TypeKLFHeader = "KLF.HDR.1"
	TypeKLFEnd    = "KLF.END.1"
)

// KLF is a key load file: a KMC's answer to one VKLOADREQ of one module, with
// the module's keys, wrapped, and their attributes.
type KLF struct {
	KMC      string
	ModuleID string
	TVP      string
	Response string   // the VKLOAD.RSP.1 record
	Keys     []Record // VK.WRAP.1, in the file's order
}

// Text returns the file.
func (k KLF) Text() string {
	count := strconv.Itoa(len(k.Keys))
	lines := make([]string, 0, len(k.Keys)+3)
	lines = append(lines,
		NewRecord(TypeKLFHeader, "KMC", k.KMC, "SMI", k.ModuleID, "TVP", k.TVP, "CNT", count).String(), k.Response)
	for _, r := range k.Keys {
		lines = append(lines, r.String())
	}
	lines = append(lines, NewRecord(TypeKLFEnd, "CNT", count, "SHA", digestLines(lines)).String())
	return Armor(BlockKLF, lines...)
}

// digestLines is SHA-384 over lines, each ended by LF.
func digestLines(lines []string) string {
	h := sha512.New384()
	for _, l := range lines {
		h.Write([]byte(l))
		h.Write([]byte{'\n'})
	}
	return upperHex(h.Sum(nil))
}

// legacy matches the header and key records of an STS Edition 1 key load file.
var legacy = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?m)^[> \t]*(?:9500[0-9]{10}[0-9A-Z]{8}|9520[0-9A-Z]{4})`)
})

// ParseKLF reads a key load file, possibly inside an e-mail. It checks all that
// can be checked without keys: every record, the count, the digest, and that
// header and response speak of the same module, KMC and request.
func ParseKLF(text string) (KLF, error) {
	if len(text) <= maxText && !strings.Contains(text, beginLine(BlockKLF)) && legacy().MatchString(text) {
		return KLF{}, errkind.Errorf(errkind.Refused, "this is a key load file of STS Edition 1 (records 9500 and 9520), "+
			"made for a module with STS04 or STS05 firmware; it cannot be loaded. "+
			"Generate a VKLOADREQ, send it to the KMC and ask for an STS Edition 2 key load file (record %s)", TypeKLFHeader)
	}
	lines, err := Dearmor(BlockKLF, text)
	if err != nil {
		return KLF{}, err
	}
	if len(lines) < 3 {
		return KLF{}, errkind.Errorf(errkind.Invalid, "the key load file has %d records; it is cut short", len(lines))
	}
	k := KLF{Response: lines[1]}
	count, err := k.header(lines[0])
	if err != nil {
		return KLF{}, errkind.Errorf(errkind.Invalid, "key load file, record 1: %w", err)
	}
	last := len(lines) - 1
	if err := checkEnd(lines[last], count, lines[:last]); err != nil {
		return KLF{}, err
	}
	if len(lines) != count+3 {
		return KLF{}, errkind.Errorf(errkind.Integrity, "the key load file announces %d keys and has %d", count, len(lines)-3)
	}
	p, err := ParseResponse(lines[1])
	if err != nil {
		return KLF{}, errkind.Errorf(errkind.Invalid, "key load file, record 2: %w", err)
	}
	if n, ok := p.Keys(); !ok || n != count || p.KMC != k.KMC || p.ModuleID != k.ModuleID || p.TVP != k.TVP {
		return KLF{}, errkind.Errorf(errkind.Integrity, "the key load file's header and its %s record do not belong together", TypeResponse)
	}
	for i, line := range lines[2:last] {
		rec, err := ParseWrappedKey(line)
		if err != nil {
			return KLF{}, errkind.Errorf(errkind.Invalid, "key load file, record %d: %w", i+3, err)
		}
		k.Keys = append(k.Keys, rec)
	}
	return k, nil
}

func (k *KLF) header(line string) (count int, err error) {
	rec, err := ParseRecord(line)
	if err != nil {
		return 0, err
	}
	if err := rec.ofType(TypeKLFHeader, "KMC", "SMI", "TVP", "CNT"); err != nil {
		return 0, err
	}
	r := reader{rec: rec}
	k.KMC, k.ModuleID, k.TVP = r.ident("KMC"), r.digits("SMI", 8), rec.Get("TVP")
	r.time("TVP", DateTime)
	return r.number("CNT", 1, MaxKeys), r.err
}

func checkEnd(line string, count int, before []string) error {
	rec, err := ParseRecord(line)
	if err == nil {
		err = rec.ofType(TypeKLFEnd, "CNT", "SHA")
	}
	if err != nil {
		return errkind.Errorf(errkind.Invalid, "key load file, last record: %w", err)
	}
	if rec.Get("SHA") != digestLines(before) || rec.Get("CNT") != strconv.Itoa(count) {
		return errkind.Errorf(errkind.Integrity, "the key load file was changed on its way: the digest or the count in its last record does not match")
	}
	return nil
}
