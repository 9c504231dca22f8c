package crash_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// sound returns two answered calls and one that never happened, with the log that
// belongs to them.
func sound() ([]vending.Call, []auditlog.Record) {
	token := func(digits string, tid int32) []*prismtoken1.Token {
		return []*prismtoken1.Token{{Drn: "01234567897", Pan: "600727012345678977", Sgc: 123456, Tid: tid, TransferAmount: 7, TokenDec: digits}}
	}
	calls := []vending.Call{
		{MessageID: "a", Tokens: token("11111111111111111111", 0x10)},
		{MessageID: "b", Tokens: token("22222222222222222222", 0x11), Fetched: true},
		{MessageID: "c", Code: "ECacheMiss"},
	}
	entry := func(seq uint64, message, digits, tid string) auditlog.Record {
		digest := sha256.Sum256([]byte(digits))
		return auditlog.Record{Seq: seq, Entry: auditlog.Entry{Kind: "token.credit", Subject: "600727012345678977", Detail: map[string]string{
			"message": message, "units": "7", "tid": tid, "sgc": "123456", "tokenSha256": hex.EncodeToString(digest[:])}}}
	}
	return calls, []auditlog.Record{
		{Seq: 0, Entry: auditlog.Entry{Kind: "vcm.start"}},
		entry(1, "a", "11111111111111111111", "000010"), entry(2, "b", "22222222222222222222", "000011"),
	}
}

// TestFindings: each violation is found, and nothing where there is none.
func TestFindings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit func(calls []vending.Call, log []auditlog.Record) ([]vending.Call, []auditlog.Record)
		want string
	}{
		"nothing": {func(c []vending.Call, l []auditlog.Record) ([]vending.Call, []auditlog.Record) { return c, l }, ""},
		"one identifier twice": {func(c []vending.Call, l []auditlog.Record) ([]vending.Call, []auditlog.Record) {
			c[1].Tokens[0].Tid, l[2].Detail["tid"] = 0x10, "000010"
			return c, l
		}, "got TID 16 twice"},
		"a token without an entry": {func(c []vending.Call, l []auditlog.Record) ([]vending.Call, []auditlog.Record) { return c, l[:2] },
			"answered with a token that is not in the log"},
		"an entry for what never happened": {func(c []vending.Call, l []auditlog.Record) ([]vending.Call, []auditlog.Record) {
			c[1].Tokens, c[1].Code = nil, "ECacheMiss"
			return c, l
		}, "but its token is in the log as entry 2"},
		"an entry that nobody asked for": {func(c []vending.Call, l []auditlog.Record) ([]vending.Call, []auditlog.Record) { return c[:1], l },
			"which nobody sent"},
		"two entries for one call": {func(c []vending.Call, l []auditlog.Record) ([]vending.Call, []auditlog.Record) {
			l[2].Detail["message"] = "a"
			return c[:1], l
		}, "are of one message a"},
		"another token in the log": {func(c []vending.Call, l []auditlog.Record) ([]vending.Call, []auditlog.Record) {
			c[0].Tokens[0].TokenDec = "33333333333333333333"
			return c, l
		}, "digest is"},
		"other units in the log": {func(c []vending.Call, l []auditlog.Record) ([]vending.Call, []auditlog.Record) {
			l[1].Detail["units"] = "8"
			return c, l
		}, "units is 8, not 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls, log := test.edit(sound())
			units, bad := unaudited(calls, log)
			bad = append(bad, twins(calls)...)
			if test.want == "" && (len(bad) != 0 || units["123456"] != 14) {
				t.Errorf("%d units, %v", units["123456"], bad)
			}
			if test.want != "" && !slices.ContainsFunc(bad, func(f string) bool { return strings.Contains(f, test.want) }) {
				t.Errorf("%q is not among %v", test.want, bad)
			}
		})
	}
}
