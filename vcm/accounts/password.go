package accounts

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/crypto/argon2"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Bounds of a password.
const (
	maxPassword = 55 // the wire's limit
	saltSize    = 16
	hashSize    = 32
	// maxWaiting bounds how many sign-ins may queue for the hasher; each holds
	// a connection, none holds memory for the hash.
	maxWaiting = 2048
)

// cost is the price of one argon2id evaluation, with one lane.
//
// The default, 4 MiB and one pass, is 2.5 ms of a core: below what is advised for
// hashes that a thief can take home. These are sealed under the partition's key,
// which the module gives to the VCM alone; guesses have to pass the lock-out and the
// throttle; and many clients sign in for each vend, so that a higher cost would be
// a way to starve vending. Who can afford more sets the preference.
type cost struct {
	memoryKiB uint32
	passes    uint32
}

// hasher evaluates argon2id on at most one core each, so that memory in use
// is bounded by cores × cost and vending keeps its share of the processor.
type hasher struct {
	slots   chan struct{}
	waiting chan struct{}
}

func newHasher() *hasher {
	return &hasher{
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0))),
		waiting: make(chan struct{}, maxWaiting),
	}
}

func (h *hasher) enter(ctx context.Context) (leave func(), err error) {
	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		return nil, errkind.Errorf(errkind.Unavailable, "%d sign-ins are waiting already: try again", maxWaiting)
	}
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, errkind.Errorf(errkind.Unavailable, "sign-in given up while waiting: %w", ctx.Err())
	}
}

// hash returns a PHC string of the password.
func (h *hasher) hash(ctx context.Context, random io.Reader, password string, c cost) (string, error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(random, salt); err != nil {
		return "", errkind.Errorf(errkind.Internal, "no random salt: %w", err)
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	sum := argon2.IDKey([]byte(password), salt, c.passes, c.memoryKiB, 1, hashSize)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, c.memoryKiB, c.passes,
		b64.EncodeToString(salt), b64.EncodeToString(sum)), nil
}

// verify reports whether password matches the PHC string. A non-nil check is
// asked after the wait for a core, before the evaluation.
func (h *hasher) verify(ctx context.Context, phc, password string, check func() error) (bool, error) {
	c, salt, want, err := parsePHC(phc)
	if err != nil {
		return false, err
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	if check != nil {
		if err := check(); err != nil {
			return false, err
		}
	}
	got := argon2.IDKey([]byte(password), salt, c.passes, c.memoryKiB, 1, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

func parsePHC(phc string) (c cost, salt, sum []byte, err error) {
	bad := func(what string) (cost, []byte, []byte, error) {
		return cost{}, nil, nil, errkind.Errorf(errkind.Integrity, "stored password hash: %s", what)
	}
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return bad("not argon2id of a known version")
	}
	var lanes int
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &c.memoryKiB, &c.passes, &lanes); err != nil || n != 3 || lanes != 1 || c.passes == 0 {
		return bad("bad parameters")
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	sum, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(sum) != hashSize {
		return bad("bad encoding")
	}
	return c, salt, sum, nil
}

// policy is what the preferences ask of a new password.
type policy struct {
	minLength, upper, lower, digits, symbols int
	history                                  int
}

func (p policy) check(username, password string) error {
	var upper, lower, digits, symbols int
	for _, r := range password {
		switch {
		case r < 0x20 || r > 0x7e:
			return errkind.Errorf(errkind.Invalid, "the password may have printable ASCII characters only")
		case unicode.IsUpper(r):
			upper++
		case unicode.IsLower(r):
			lower++
		case unicode.IsDigit(r):
			digits++
		default:
			symbols++
		}
	}
	if len(password) > maxPassword {
		return errkind.Errorf(errkind.Invalid, "the password is longer than %d characters", maxPassword)
	}
	if len(password) < p.minLength || upper < p.upper || lower < p.lower || digits < p.digits || symbols < p.symbols {
		return errkind.Errorf(errkind.Invalid,
			"the password is too weak: it needs at least %d characters, %d upper case, %d lower case, %d digits, %d others",
			p.minLength, p.upper, p.lower, p.digits, p.symbols)
	}
	if strings.EqualFold(password, username) {
		return errkind.Errorf(errkind.Invalid, "the password must not be the user's name")
	}
	return nil
}
