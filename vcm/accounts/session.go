package accounts

import (
	"container/list"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Bounds of the sessions kept in memory. A client may sign in for each vend,
// so the bounds are far above what a session's lifetime should see.
const (
	tokenSize          = 32 // octets of entropy in an access token
	maxSessionsPerUser = 1 << 16
	maxSessions        = 1 << 17
)

// Session is who the bearer of an access token is.
type Session struct {
	Username    string
	Permissions Permission
	Expires     time.Time
}

// tokenID is a truncated hash: what is kept in place of an access token.
type tokenID [16]byte

func idOf(token string) tokenID {
	sum := sha256.Sum256([]byte(token))
	return tokenID(sum[:16])
}

type session struct {
	id      tokenID
	user    *account
	expires int64 // Unix seconds
	inUser  *list.Element
}

// sessions are the open ones, and for each user the order in which they began,
// so that at a bound the user's own oldest one makes room.
type sessions struct {
	mu     sync.RWMutex
	byID   map[tokenID]*session
	byUser map[*account]*list.List
	swept  int64
}

func newSessions() *sessions {
	return &sessions{byID: make(map[tokenID]*session), byUser: make(map[*account]*list.List)}
}

// open makes a session and returns its access token.
func (s *sessions) open(random io.Reader, user *account, now, expires time.Time) (string, error) {
	raw := make([]byte, tokenSize)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", errkind.Errorf(errkind.Internal, "no random access token: %w", err)
	}
	token := base64.RawURLEncoding.EncodeToString(raw)
	ses := &session{id: idOf(token), user: user, expires: expires.Unix()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now.Unix())
	own := s.byUser[user]
	if own == nil {
		own = list.New()
		s.byUser[user] = own
	}
	if own.Len() >= maxSessionsPerUser {
		s.drop(own.Front().Value.(*session))
	}
	if len(s.byID) >= maxSessions {
		s.drop(s.largest().Front().Value.(*session))
		own = s.ownList(user)
	}
	ses.inUser = own.PushBack(ses)
	s.byID[ses.id] = ses
	return token, nil
}

func (s *sessions) ownList(user *account) *list.List {
	own := s.byUser[user]
	if own == nil {
		own = list.New()
		s.byUser[user] = own
	}
	return own
}

func (s *sessions) largest() *list.List {
	var most *list.List
	for _, l := range s.byUser {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	return most
}

// sweep drops what has expired, at most once a second and with the lock held.
func (s *sessions) sweep(now int64) {
	if now == s.swept {
		return
	}
	s.swept = now
	for _, own := range s.byUser {
		// Lifetimes follow a preference, so order of begin is nearly order of
		// end; one that outlives its successors only delays their removal.
		for e := own.Front(); e != nil && e.Value.(*session).expires <= now; e = own.Front() {
			s.drop(e.Value.(*session))
		}
	}
}

func (s *sessions) drop(ses *session) {
	delete(s.byID, ses.id)
	own := s.byUser[ses.user]
	own.Remove(ses.inUser)
	if own.Len() == 0 {
		delete(s.byUser, ses.user)
	}
}

// find returns the session of a token that is still open at now.
func (s *sessions) find(token string, now time.Time) (*session, bool) {
	s.mu.RLock()
	ses, ok := s.byID[idOf(token)]
	s.mu.RUnlock()
	if !ok || now.Unix() >= ses.expires {
		return nil, false
	}
	return ses, true
}

// closeAll ends every session of a user.
func (s *sessions) closeAll(user *account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own := s.byUser[user]; own != nil {
		for own.Len() > 0 {
			s.drop(own.Front().Value.(*session))
		}
	}
}
