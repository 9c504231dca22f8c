// Package matrix makes every method of the TokenApi fail in every way it can, and
// expects the exact key of the error.
//
// The interface definition is the list of what there is to try: methods and fields
// are found in the code that is generated from it. A method or a field that has no
// entry here is a failure, so that none can be forgotten.
package matrix

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Target is a token service, with two users and the keys that Groups names.
type Target struct {
	// Call makes one call; every call goes over one connection.
	Call func(ctx context.Context, method string, args, result thrift.TStruct) error
	// User may do everything, Bare may sign in and nothing else.
	User, Bare string
	// Expired is a token that was good once, Foreign one of another tenant's VCM.
	Expired, Foreign string
	// Token is one that another user issued for ValidMeter, with the message id
	// OthersMessage.
	Token    string
	Password string // of User
	TestMode bool   // the module is in CTS mode
}

// What a target has to have.
const (
	UserName      = "any"      // the user of Target.User
	OperatorName  = "operator" // a user who may not use the token service, with the same password
	OthersMessage = "of-other"
)

// Case is one way to make a valid call invalid, or another way to make it valid.
type Case struct {
	Name  string
	Field string // the path of what it changes, for example meterConfig.newConfig.toSgc
	Set   func(args thrift.TStruct)
	Code  string // exactly; "" for success
	Text  string // part of the message
}

// Method is one method of the interface: a valid call, what it needs, and how it fails.
type Method struct {
	Name   string
	Valid  func(t *Target, token string) thrift.TStruct
	Result func() Result
	Token  bool   // takes an access token
	Role   bool   // and needs a role besides ptoken-api
	Answer string // the code of the valid call, "" for success
	Cases  []Case
	// Free are fields that cannot be wrong, with the reason.
	Free map[string]string
}

// Result is what every result struct of the interface has.
type Result interface {
	thrift.TStruct
	GetEx1() *prismtoken1.ApiException
}

// run is one pass over everything.
type run struct {
	target *Target
	calls  int
	bad    []string
}

func (r *run) failf(format string, args ...any) { r.bad = append(r.bad, fmt.Sprintf(format, args...)) }

// Run tries everything, and returns how many calls it made and what was not as
// expected.
func Run(ctx context.Context, t *Target) (calls int, bad []string) {
	methods := Methods(t.TestMode)
	r := &run{target: t, bad: Forgotten(methods)}
	for i := range methods {
		m := &methods[i]
		r.try(ctx, m, Case{Name: "valid", Code: m.Answer}, t.User)
		if m.Token {
			r.tokens(ctx, m)
		}
		for _, c := range m.Cases {
			r.try(ctx, m, c, t.User)
		}
		r.malformed(ctx, m)
	}
	err := t.Call(ctx, "issueFreeTokens", Struct(nil), Struct(nil))
	if kind := applicationException(err); kind != thrift.UNKNOWN_METHOD {
		r.failf("an unknown method: %v", err)
	}
	return r.calls, r.bad
}

// tokens tries each wrong access token.
func (r *run) tokens(ctx context.Context, m *Method) {
	const refused = "Authentication failed (bad accessToken: "
	for _, c := range []struct{ name, token, reason string }{
		{"no token", "", "missing"}, {"malformed token", "a\x00b", "malformed"}, {"long token", strings.Repeat("A", 300), "malformed"},
		{"unknown token", strings.Repeat("A", 43), "unknown or expired"}, {"expired token", r.target.Expired, "unknown or expired"},
		{"other tenant's token", r.target.Foreign, "unknown or expired"},
	} {
		r.try(ctx, m, Case{Name: c.name, Code: "EAuthentication.Token", Text: refused + c.reason + ")"}, c.token)
	}
	if m.Role {
		const denied = "Access denied: accessToken does not have permission 'ptoken."
		r.try(ctx, m, Case{Name: "missing role", Code: "EAuthentication.Permission", Text: denied}, r.target.Bare)
	}
}

// try makes one call.
func (r *run) try(ctx context.Context, m *Method, c Case, token string) {
	args, result := m.Valid(r.target, token), m.Result()
	if c.Set != nil {
		c.Set(args)
	}
	r.calls++
	if err := r.target.Call(ctx, m.Name, args, result); err != nil {
		r.failf("%s, %s: %v", m.Name, c.Name, err)
		return
	}
	got := &prismtoken1.ApiException{}
	if ex := result.GetEx1(); ex != nil {
		got = ex
	}
	if got.ECode != c.Code || !strings.Contains(got.EMsgEn, c.Text) {
		r.failf("%s, %s: %q %q, expected %q %q", m.Name, c.Name, got.ECode, got.EMsgEn, c.Code, c.Text)
	}
}

// malformed leaves out, and sends as another type, each field that is required.
func (r *run) malformed(ctx context.Context, m *Method) {
	for _, f := range Fields(m.Valid(r.target, "")) {
		if !f.Required {
			continue
		}
		args := m.Valid(r.target, r.target.User)
		if f.Optional {
			set(args, f.Path, 1) // so that the struct around it is there
		}
		whole, err := treeOf(ctx, args)
		if err != nil {
			r.failf("%s: %v", m.Name, err)
			return
		}
		for how, broken := range map[string]Struct{"left out": whole.without(f.IDs), "of another type": whole.retyped(f.IDs)} {
			r.calls++
			err := r.target.Call(ctx, m.Name, broken, Struct(nil))
			if kind := applicationException(err); kind != thrift.PROTOCOL_ERROR {
				r.failf("%s, %s %s: %v, expected an application exception of type %d", m.Name, f.Path, how, err, thrift.PROTOCOL_ERROR)
			}
		}
	}
}

func applicationException(err error) int32 {
	var e thrift.TApplicationException
	if errors.As(err, &e) {
		return e.TypeId()
	}
	return -1
}
