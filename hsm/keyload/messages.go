package keyload

import (
	"strconv"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Types of the key-agreement records.
const (
	TypeRequest  = "VKLOAD.REQ.1"
	TypeResponse = "VKLOAD.RSP.1"
)

// MaxKeys bounds the number of keys that one KLF announces.
const MaxKeys = 9999

// Request is a VKLOADREQ: a module asks a KMC for its vending keys.
type Request struct {
	ModuleID     string
	SPN          int
	KMC          string
	KPN          int
	TVP          string // the request's time, CCYYMMDDhhmmss
	HardwareID   string
	FirmwareID   string
	FirmwareHash []byte // may be absent
	QEU          []byte // the module's ephemeral public key
}

// Record returns the VKLOAD.REQ.1 record.
func (q Request) Record() Record {
	return NewRecord(TypeRequest, "SMI", q.ModuleID, "SPN", strconv.Itoa(q.SPN),
		"KMC", q.KMC, "KPN", strconv.Itoa(q.KPN), "TVP", q.TVP, "SCH", Scheme,
		"HWI", q.HardwareID, "FWI", q.FirmwareID, "FWH", upperHex(q.FirmwareHash), "QEU", upperHex(q.QEU))
}

// Text returns the record's text: what the key derivation binds.
func (q Request) Text() string { return q.Record().String() }

func (q Request) smIdentity() string  { return SMIdentity(q.ModuleID, q.SPN) }
func (q Request) kmcIdentity() string { return KMCIdentity(q.KMC, q.KPN) }

// ParseRequestText reads a VKLOADREQ, with or without its guards.
func ParseRequestText(text string) (Request, error) {
	rec, err := dearmorOrBare(BlockRequest, TypeRequest, text)
	if err != nil {
		return Request{}, err
	}
	r := reader{rec: rec}
	r.err = rec.ofType(TypeRequest, "SMI", "SPN", "KMC", "KPN", "TVP", "SCH", "HWI", "FWI", "FWH", "QEU")
	q := Request{
		ModuleID: r.digits("SMI", 8), SPN: r.number("SPN", 1, 999999),
		KMC: r.ident("KMC"), KPN: r.number("KPN", 1, 999999), TVP: rec.Get("TVP"),
		HardwareID: r.ident("HWI"), FirmwareID: r.ident("FWI"), QEU: r.hex("QEU", pointSize),
	}
	r.time("TVP", DateTime)
	if rec.Get("FWH") != "" {
		q.FirmwareHash = r.hex("FWH", 0)
	}
	if scheme := r.text("SCH"); r.err == nil && scheme != Scheme {
		r.fail("SCH", "names scheme %q; only %s is supported", scheme, Scheme)
	}
	if r.err != nil {
		return Request{}, errkind.Errorf(errkind.Invalid, "VKLOADREQ: %w", r.err)
	}
	return q, nil
}

// Response is a VKLOADRSP: the KMC's half of the key agreement.
type Response struct {
	ModuleID string
	SPN      int
	KMC      string
	KPN      int
	TVP      string
	Scheme   string
	KID      string // four hex digits that tie the key records to this session
	Count    string // how many keys follow; judged by the module
	QEV      []byte
	MAC      []byte
}

// Record returns the VKLOAD.RSP.1 record.
func (p Response) Record() Record {
	return NewRecord(TypeResponse, "SMI", p.ModuleID, "SPN", strconv.Itoa(p.SPN),
		"KMC", p.KMC, "KPN", strconv.Itoa(p.KPN), "TVP", p.TVP, "SCH", p.Scheme,
		"KID", p.KID, "CNT", p.Count, "QEV", upperHex(p.QEV), "MAC", upperHex(p.MAC))
}

// ParseResponse reads a VKLOAD.RSP.1 record: every field is there and has its
// form. Whether the values are the right ones is the module's to say.
func ParseResponse(record string) (Response, error) {
	rec, err := ParseRecord(record)
	if err != nil {
		return Response{}, err
	}
	if err := rec.ofType(TypeResponse, "SMI", "SPN", "KMC", "KPN", "TVP", "SCH", "KID", "CNT", "QEV", "MAC"); err != nil {
		return Response{}, err
	}
	r := reader{rec: rec}
	p := Response{
		ModuleID: r.digits("SMI", 8), SPN: r.number("SPN", 1, 999999),
		KMC: r.ident("KMC"), KPN: r.number("KPN", 1, 999999), TVP: rec.Get("TVP"), Scheme: r.text("SCH"),
		KID: rec.Get("KID"), Count: r.text("CNT"), QEV: r.hex("QEV", 0), MAC: r.hex("MAC", 16),
	}
	r.time("TVP", DateTime)
	r.hex("KID", 2)
	if p.Count != "" && strings.Trim(p.Count, "0123456789") != "" {
		r.fail("CNT", "is not a number")
	}
	return p, r.err
}

// Keys returns the number of keys announced, false if it is out of range.
func (p Response) Keys() (int, bool) {
	n, err := strconv.Atoi(p.Count)
	return n, err == nil && strconv.Itoa(n) == p.Count && n >= 1 && n <= MaxKeys
}
