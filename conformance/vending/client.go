// Package vending is a vending system's side of PrismToken: framed binary Thrift
// over TLS, with the server's certificate checked.
//
// It speaks through the generated interface only and knows nothing of how a
// module issues, so it serves the project's black-box tests and the command
// vend.
package vending

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	"github.com/google/uuid"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Realm is the only realm that PrismToken documents.
const Realm = "local"

// maxFrame bounds an answer; a list of four tokens is below 4 KiB.
const maxFrame = 1 << 20

// Config says where a server is and whom to trust.
type Config struct {
	// Address is host:port.
	Address string
	Trust   *Trust
	// Timeout bounds connecting and each call; zero means 30 seconds.
	Timeout time.Duration
	// Dial makes the connection below TLS; nil means the net's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client is one connection. Like a Thrift client it has one call outstanding at
// a time; it is not safe for concurrent use.
type Client struct {
	// API is the generated client, for calls that Client does not wrap.
	API *prismtoken1.TokenApiClient
	// Token is the access token of the last SignIn; it is valid on any connection.
	Token string

	transport thrift.TTransport
	stop      func() bool
}

// Dial connects. Cancelling ctx closes the connection, also later.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	host, _, err := net.SplitHostPort(cfg.Address)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "address %q is not host:port", cfg.Address)
	}
	if cfg.Trust == nil {
		return nil, errkind.Errorf(errkind.Invalid, "no certificate to trust was given")
	}
	dialling, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	conn, err := cfg.connect(dialling, host)
	if err != nil {
		var untrusted *UntrustedError
		if errors.As(err, &untrusted) {
			return nil, errkind.Errorf(errkind.Integrity, "connect to %s: %w", cfg.Address, err)
		}
		return nil, errkind.Errorf(errkind.Unavailable, "connect to %s: %w", cfg.Address, err)
	}
	conf := &thrift.TConfiguration{
		SocketTimeout: cfg.Timeout, MaxFrameSize: maxFrame, MaxMessageSize: maxFrame,
		TBinaryStrictRead: thrift.BoolPtr(true), TBinaryStrictWrite: thrift.BoolPtr(true),
	}
	// The buffer makes frame header and message one TLS record.
	socket := thrift.NewTSSLSocketFromConnConf(conn, conf)
	framed := thrift.NewTFramedTransportConf(thrift.NewTBufferedTransport(socket, 8<<10), conf)
	protocol := thrift.NewTBinaryProtocolConf(framed, conf)
	c := &Client{API: prismtoken1.NewTokenApiClient(thrift.NewTStandardClient(protocol, protocol)), transport: framed}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return c, nil
}

// connect shakes hands with who is at the address and is to be trusted as host.
func (cfg *Config) connect(ctx context.Context, host string) (*tls.Conn, error) {
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	below, err := dial(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(below, cfg.Trust.TLS(host))
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = below.Close()
		return nil, err
	}
	return conn, nil
}

// Close ends the connection.
func (c *Client) Close() error {
	c.stop()
	return c.transport.Close()
}

// SignIn obtains an access token for the calls that follow.
func (c *Client) SignIn(ctx context.Context, user, password string) error {
	r, err := c.API.SignInWithPassword(ctx, MessageID(), Realm, user, password, prismtoken1.NewSessionOptions())
	if err != nil {
		return Error("sign in", err)
	}
	c.Token = r.AccessToken
	return nil
}

// MessageID returns a fresh message identifier.
func MessageID() string { return uuid.NewString() }

// Error gives a failed call its kind. A server's exception keeps its code and
// text; whatever broke the connection is Unavailable, and whether the call took
// effect is then unknown until fetchTokenResult tells.
func Error(what string, err error) error {
	if err == nil {
		return nil
	}
	var api *prismtoken1.ApiException
	if errors.As(err, &api) {
		return errkind.Errorf(apiKind(api.ECode), "%s: %s: %s%w", what, api.ECode, api.EMsgEn, hidden{err})
	}
	var app thrift.TApplicationException
	if errors.As(err, &app) {
		return errkind.Errorf(errkind.Internal, "%s: the server could not handle the call (type %d): %w", what, app.TypeId(), err)
	}
	return errkind.Errorf(errkind.Unavailable, "%s: connection failed, the outcome is unknown: %w", what, err)
}

// hidden keeps a cause reachable by errors.As without repeating its text.
type hidden struct{ error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.error }

// ErrorCode returns the eCode of a server's exception, "" if err is none.
func ErrorCode(err error) string {
	var api *prismtoken1.ApiException
	if errors.As(err, &api) {
		return api.ECode
	}
	return ""
}

// apiKind is the one table from the API's error keys to kinds. Keys are not a
// closed set; an unknown one is a refusal.
func apiKind(code string) errkind.Kind {
	switch code {
	case "EService":
		return errkind.Internal
	case "EService.Disabled":
		return errkind.Mode
	case "EAuthentication.Token", "EAuthentication.Permission",
		"ESignin.Realm", "ESignin.Subject", "ESignin.Authentication", "ESignin.Permission":
		return errkind.Unauthorised
	case "EParamRange", "ESts.DrnOrPan", "ESts.DrnOrPan.CheckDigit", "ESts.IdRecord", "ESignin.Version":
		return errkind.Invalid
	case "EKeystore.NotFound", "ECacheMiss":
		return errkind.NotFound
	}
	return errkind.Refused
}

// String describes a token for people.
func String(t *prismtoken1.Token) string {
	amount := ""
	if t.ScaledAmount != "" && (t.TokenClass == 0 || t.Tid != 0) {
		amount = fmt.Sprintf(" %s %s", t.ScaledAmount, t.ScaledUnitName)
	}
	return fmt.Sprintf("%s  %s%s", Grouped(t.TokenDec), t.Description, amount)
}

// Grouped writes digits in fours, as people type them.
func Grouped(digits string) string {
	var out []byte
	for i := range len(digits) {
		if i > 0 && i%4 == 0 {
			out = append(out, ' ')
		}
		out = append(out, digits[i])
	}
	return string(out)
}
