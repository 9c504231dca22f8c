package pos

import (
	"bytes"
	"context"
	"strconv"

	"github.com/tesserae-hsm/tesserae/internal/auditlog"
	"github.com/tesserae-hsm/tesserae/vcm/store"
)

// ResetTIDs forgets the identifiers of every meter whose PAN matches a pattern
// of digits, ? and *. Only a module in test mode does that: a meter would refuse a
// token whose identifier it knows.
func (s *Service) ResetTIDs(ctx context.Context, c Caller, messageID, pattern string) (drns []string, err error) {
	if err := s.CheckTestMode(); err != nil {
		return nil, err
	}
	if len(pattern) < 1 || len(pattern) > 18 || !onlyPattern(pattern) {
		return nil, outOfRange("panPattern", pattern, "1 to 18 digits, ? and *")
	}
	err = s.store.Shrink(ctx, func(tx *store.Tx) error {
		drns = []string{}
		b := tx.Bucket(bucketMeters)
		var pans [][]byte
		err := b.Range(nil, func(pan, _ []byte) error {
			if matches(pattern, string(pan)) {
				pans = append(pans, bytes.Clone(pan))
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, pan := range pans {
			p, err := parsePAN("pan", string(pan))
			if err != nil {
				return err
			}
			drns = append(drns, p.DRN())
			if err := deleteAll(tx.Bucket(bucketNamed), pan); err != nil {
				return err
			}
			if err := b.Delete(pan); err != nil {
				return err
			}
		}
		by := auditOf(c, messageID)
		return s.audit(tx, auditlog.Entry{
			Time: s.now(), Kind: "tid.reset", Actor: by.Actor, Subject: pattern,
			Detail: map[string]string{by.Note[0]: by.Note[1], "meters": strconv.Itoa(len(drns))},
		})
	})
	return drns, err
}

// CheckTestMode refuses what only a module in CTS test mode does.
func (s *Service) CheckTestMode() error {
	if s.testMode {
		return nil
	}
	return Faultf(Disabled, "the module is not in CTS test mode")
}

func onlyPattern(p string) bool {
	for _, r := range p {
		if (r < '0' || r > '9') && r != '?' && r != '*' {
			return false
		}
	}
	return true
}

// matches reports whether text matches a pattern of literals, ? and *.
func matches(pattern, text string) bool {
	// The last * seen, and how much text it covers so far: going back to it is
	// enough, because a later * can take over whatever an earlier one could.
	star, covered, p, t := -1, 0, 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, covered = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			covered++
			p, t = star+1, covered
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
