package crash_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tesserae-hsm/tesserae/conformance/rig"
	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// findings are violations of an invariant.
type findings []string

func (f *findings) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// none fails the test for each finding.
func none(t *testing.T, f findings) {
	t.Helper()
	for _, what := range f {
		t.Error(what)
	}
}

// twins finds meters that got two tokens with one identifier.
func twins(calls []vending.Call) (bad findings) {
	type identifier struct {
		drn string
		tid int32
	}
	first := map[identifier]*prismtoken1.Token{}
	for _, c := range calls {
		for _, token := range c.Tokens {
			id := identifier{token.Drn, token.Tid}
			if twin := first[id]; twin != nil {
				bad.add("meter %s got TID %d twice: %s and %s", id.drn, id.tid, twin.TokenDec, token.TokenDec)
			}
			first[id] = token
		}
	}
	return bad
}

// rejected enters every token into its meter in the order of the identifiers, and
// finds those that a meter did not take for what they were sold as.
func rejected(calls []vending.Call, accounts []rig.Account) (bad findings) {
	tokens := map[string][]*prismtoken1.Token{}
	for _, c := range calls {
		for _, token := range c.Tokens {
			tokens[token.Drn] = append(tokens[token.Drn], token)
		}
	}
	for _, a := range accounts {
		mine := tokens[a.Config.Drn]
		delete(tokens, a.Config.Drn)
		slices.SortFunc(mine, func(a, b *prismtoken1.Token) int { return cmp.Compare(a.Tid, b.Tid) })
		for _, token := range mine {
			r, err := a.Meter.Enter(token.TokenDec, time.Now())
			switch {
			case err != nil:
				bad.add("meter %s: %v", a.Config.Drn, err)
			case !r.Accepted || r.Amount != strconv.Itoa(int(token.TransferAmount)):
				bad.add("meter %s: %s, for %v", a.Config.Drn, r, token.TransferAmount)
			}
		}
	}
	for drn, strays := range tokens {
		bad.add("%d tokens for meter %s, which is nobody's", len(strays), drn)
	}
	return bad
}

// auditor reads a VCM's log as its tenant does: exported and verified with the
// unit's key.
type auditor struct {
	r       *rig.Rig
	v       *rig.VCM
	files   []string
	last    *auditlog.Verified
	records []auditlog.Record
}

// export gets what was not expired of the log; expire frees the VCM's disk of it.
func (a *auditor) export(ctx context.Context, expire bool) error {
	dir, err := os.MkdirTemp(a.r.Mail(""), "log-")
	if err != nil {
		return err
	}
	args := []string{"vcm", "logs", "export", "--saved", "--json", "--outdir", dir}
	if expire {
		args = append(args, "--expire")
	}
	out, err := a.r.Run(ctx, rig.Tenant, "hsmadmin", args...)
	if err != nil {
		return err
	}
	var pieces []struct{ File string }
	if err := json.Unmarshal([]byte(out), &pieces); err != nil || len(pieces) == 0 {
		return fmt.Errorf("hsmadmin vcm logs export answered %q: %v", out, err)
	}
	for _, p := range pieces {
		if err := a.take(p.File); err != nil {
			return fmt.Errorf("%s: %w", p.File, err)
		}
	}
	return nil
}

// take verifies one file and adds what it holds.
func (a *auditor) take(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	key, err := a.key(text)
	if err != nil {
		return err
	}
	v, err := auditlog.Verify(text, key)
	if err != nil {
		return err
	}
	if a.last != nil {
		if err := v.Follows(*a.last); err != nil {
			return err
		}
	} else if v.First != 0 {
		return fmt.Errorf("the log begins with entry %d", v.First)
	}
	a.last, a.files = &v, append(a.files, file)
	a.records = append(a.records, v.Records...)
	return nil
}

func (a *auditor) key(text []byte) (ed25519.PublicKey, error) {
	line, err := auditlog.Certificate(text)
	if err != nil {
		return nil, err
	}
	unit, err := a.r.UnitKey()
	if err != nil {
		return nil, err
	}
	esn, err := a.r.ESN()
	if err != nil {
		return nil, err
	}
	return auditlog.CertifiedKey(line, unit, strings.ToLower(esn+"/"+a.v.UUID+"/auditlog"))
}

// unaudited finds tokens that are not in the log, and entries of the log for calls
// that were told never to have happened. It returns the units issued by supply group.
func unaudited(calls []vending.Call, records []auditlog.Record) (units map[string]int64, bad findings) {
	units = map[string]int64{}
	entries := map[string]auditlog.Record{}
	for _, r := range records {
		if r.Kind != "token.credit" {
			continue
		}
		message := r.Detail["message"]
		if other, twice := entries[message]; twice {
			bad.add("entries %d and %d are of one message %s", other.Seq, r.Seq, message)
		}
		entries[message] = r
		n, err := strconv.ParseInt(r.Detail["units"], 10, 64)
		if err != nil {
			bad.add("entry %d: units %v", r.Seq, err)
		}
		units[r.Detail["sgc"]] += n
	}
	for _, c := range calls {
		r, found := entries[c.MessageID]
		delete(entries, c.MessageID)
		switch {
		case len(c.Tokens) == 0 && found:
			bad.add("message %s was answered with %s, but its token is in the log as entry %d", c.MessageID, c.Code, r.Seq)
		case len(c.Tokens) == 0:
		case !found:
			bad.add("message %s was answered with a token that is not in the log", c.MessageID)
		default:
			bad = append(bad, differences(c.Tokens[0], r)...)
		}
	}
	for message, r := range entries {
		bad.add("entry %d is of message %s, which nobody sent", r.Seq, message)
	}
	return units, bad
}

func differences(token *prismtoken1.Token, r auditlog.Record) (bad findings) {
	digest := sha256.Sum256([]byte(token.TokenDec))
	for _, f := range []struct{ what, got, want string }{
		{"digest", r.Detail["tokenSha256"], hex.EncodeToString(digest[:])},
		{"meter", r.Subject, token.Pan},
		{"TID", r.Detail["tid"], fmt.Sprintf("%06X", token.Tid)},
		{"units", r.Detail["units"], strconv.Itoa(int(token.TransferAmount))},
		{"supply group", r.Detail["sgc"], fmt.Sprintf("%06d", token.Sgc)},
	} {
		if f.got != f.want {
			bad.add("entry %d of token %s: %s is %s, not %s", r.Seq, token.TokenDec, f.what, f.got, f.want)
		}
	}
	return bad
}

// unitsLeft is what a key's unit limit has left.
func unitsLeft(t *testing.T, r *rig.Rig, sgc string) int64 {
	t.Helper()
	out, err := r.Run(t.Context(), rig.Tenant, "ptokenadmin", "vk", "show", "--json", sgc, "1")
	if err != nil {
		t.Fatal(err)
	}
	var key struct{ Attributes map[string]string }
	if err := json.Unmarshal([]byte(out), &key); err != nil {
		t.Fatalf("ptokenadmin vk show answered %q: %v", out, err)
	}
	left, err := strconv.ParseInt(key.Attributes["ULM"], 16, 64)
	if err != nil {
		t.Fatalf("the key's ULM is %q: %v", key.Attributes["ULM"], err)
	}
	return left
}
