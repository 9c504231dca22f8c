package fakeunit

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Names of the KMCs that the token service knows how to fail with.
const (
	// FullKMC has more keys than the module has registers.
	FullKMC = "FULL"
	klfKeys = 60
)

// tokenService is the prismtoken service: it remembers what it is told.
type tokenService struct {
	prismadmin.PrismAdmin // what the tests do not call

	mu        sync.Mutex
	users     map[string]*prismadmin.User
	prefs     map[string]string
	slots     map[string]*prismadmin.KekSlot
	keys      map[string]*prismadmin.VendingKey
	cert      []byte
	approvals prismadmin.Approvals
	restarts  int32
	made      map[string][]*prismadmin.Token
}

func newTokenService() *tokenService {
	return &tokenService{
		users: map[string]*prismadmin.User{"admin": {Username: "admin", Roles: []string{"admin"}}},
		prefs: map[string]string{"ptoken.sessionTimeoutSec": "300"},
		slots: map[string]*prismadmin.KekSlot{}, keys: map[string]*prismadmin.VendingKey{},
		cert: certificate(), made: map[string][]*prismadmin.Token{},
	}
}

func certificate() []byte {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil
	}
	return der
}

func (s *tokenService) Status(context.Context) (*prismadmin.Status, error) {
	return &prismadmin.Status{Info: map[string]string{"mode": "vending", "users": fmt.Sprint(len(s.users))}, Alerts: []string{"A001 no vending key is loaded"}}, nil
}

func (s *tokenService) SmStatus(context.Context) (*prismadmin.Status, error) {
	return &prismadmin.Status{Info: map[string]string{"firmwareId": "STS64V01", "moduleId": "00000101"}}, nil
}

func (s *tokenService) SmPublicKey(context.Context) (string, error) {
	return "SM.PUBKEY.1;SMI00000101;AAAA\n", nil
}

func (s *tokenService) user(name string) (*prismadmin.User, error) {
	u := s.users[name]
	if u == nil {
		return nil, errkind.Errorf(errkind.NotFound, "there is no user %s", name)
	}
	return u, nil
}

func (s *tokenService) UserList(context.Context) ([]*prismadmin.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*prismadmin.User
	for _, name := range slices.Sorted(maps.Keys(s.users)) {
		out = append(out, s.users[name])
	}
	return out, nil
}

func (s *tokenService) UserShow(_ context.Context, name string) (*prismadmin.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.user(name)
}

func (s *tokenService) UserCreate(_ context.Context, name string, roles []string, password string, expires int64) (*prismadmin.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[name] != nil {
		return nil, errkind.Errorf(errkind.Refused, "user %s exists", name)
	}
	if err := checkPassword(password); password != "" && err != nil {
		return nil, err
	}
	s.users[name] = &prismadmin.User{Username: name, Roles: roles, PasswordSet: password != "", AccountExpires: expires}
	return s.users[name], nil
}

func checkPassword(p string) error {
	if len(p) < 8 {
		return errkind.Errorf(errkind.Invalid, "a password has at least 8 characters")
	}
	return nil
}

func (s *tokenService) UserChange(_ context.Context, name string, c *prismadmin.UserChange) (*prismadmin.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.user(name)
	if err != nil {
		return nil, err
	}
	if c.Roles != nil {
		u.Roles = c.Roles
	}
	if c.Disabled != nil {
		u.Disabled = *c.Disabled
	}
	if c.AccountExpires != nil {
		u.AccountExpires = *c.AccountExpires
	}
	if c.Unlock != nil && *c.Unlock {
		u.Locked, u.FailedSignIns = false, 0
	}
	return u, nil
}

func (s *tokenService) UserSetPassword(_ context.Context, name, password string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.user(name)
	if err != nil {
		return err
	}
	u.PasswordSet = true
	return checkPassword(password)
}

func (s *tokenService) UserDelete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.user(name)
	delete(s.users, name)
	return err
}

func (s *tokenService) RoleList(context.Context) ([]*prismadmin.Role, error) {
	return []*prismadmin.Role{{Name: "ptoken-api", Description: "may sign in through the API"}}, nil
}

func (s *tokenService) pref(name string) *prismadmin.Preference {
	return &prismadmin.Preference{Name: name, Value: s.prefs[name], DefaultValue: "300", Type: "int", Range: "30..3600", Description: "life of a session", ChangeableBy: "admin"}
}

func (s *tokenService) PrefList(_ context.Context, prefix string) ([]*prismadmin.Preference, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []*prismadmin.Preference{}
	for _, name := range slices.Sorted(maps.Keys(s.prefs)) {
		if strings.HasPrefix(name, prefix) {
			out = append(out, s.pref(name))
		}
	}
	return out, nil
}

func (s *tokenService) PrefSet(_ context.Context, name, value string) (*prismadmin.Preference, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.prefs[name]; !ok {
		return nil, errkind.Errorf(errkind.NotFound, "there is no preference %s", name)
	}
	s.prefs[name] = value
	return s.pref(name), nil
}

func (s *tokenService) TokenEndpoint(context.Context) (*prismadmin.TokenEndpoint, error) {
	sum := sha256.Sum256(s.cert)
	return &prismadmin.TokenEndpoint{
		Address: "127.0.0.1:9443", CertificatePem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert})),
		Sha256: hex.EncodeToString(sum[:]), NotAfter: 1_900_000_000,
	}, nil
}
