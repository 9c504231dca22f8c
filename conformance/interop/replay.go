package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/conformance/vending"
	"github.com/tesserae-hsm/tesserae/internal/atomicfile"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

//go:embed testdata/frames-*.json
var captured embed.FS

// recording is a file of frames that one deployed client sent.
type recording struct {
	Client string  `json:"client"`
	Frames []frame `json:"frames"`
}

// frame is one framed request, as it went into TLS.
type frame struct {
	Method  string `json:"method"`
	SeqID   int32  `json:"seqid"`
	TLS     string `json:"tls"`
	Request string `json:"request_hex"`
	Args    struct {
		Username     string `json:"username"`
		Password     string `json:"password"`
		AccessToken  string `json:"accessToken"`
		ReqMessageID string `json:"reqMessageId"`
		Flags        int64  `json:"flags"`
		MeterConfig  *struct {
			SGC int32 `json:"sgc"`
		} `json:"meterConfig"`
		NewConfig *struct {
			ToSGC int32 `json:"toSgc"`
		} `json:"newConfig"`
	} `json:"args"`
}

// recordedUser is the dummy user of the recordings; another name is meant to fail.
const recordedUser = "api"

// replay sends every recorded frame, with live credentials and a supply group
// that the server holds, and reads the answers as a client would.
func (cfg Config) replay(ctx context.Context, trust *vending.Trust) ([]Step, error) {
	password, err := passwordIn(cfg.PasswordFile)
	if err != nil {
		return nil, err
	}
	names, err := captured.ReadDir("testdata")
	if err != nil {
		return nil, err
	}
	var steps []Step
	for _, entry := range names {
		p, err := captured.ReadFile(path.Join("testdata", entry.Name()))
		if err != nil {
			return steps, err
		}
		var r recording
		if err := json.Unmarshal(p, &r); err != nil {
			return steps, fmt.Errorf("%s: %w", entry.Name(), err)
		}
		more, err := cfg.replayOne(ctx, trust, strings.TrimSuffix(entry.Name(), ".json"), r, password)
		steps = append(steps, more...)
		if err != nil {
			return steps, fmt.Errorf("%s: %w", entry.Name(), err)
		}
	}
	return steps, nil
}

// maxPassword bounds the password file.
const maxPassword = 4096

func passwordIn(file string) (string, error) {
	p, err := atomicfile.Read(file, maxPassword)
	if err != nil {
		return "", errkind.Errorf(errkind.Invalid, "read the password: %w", err)
	}
	line, _, _ := strings.Cut(string(p), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// replayOne replays one recording on one connection, in the TLS version of the
// client.
func (cfg Config) replayOne(ctx context.Context, trust *vending.Trust, name string, r recording, password string) ([]Step, error) {
	host, _, err := net.SplitHostPort(cfg.Address)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "address %q is not host:port", cfg.Address)
	}
	config := trust.TLS(host)
	if len(r.Frames) > 0 && r.Frames[0].TLS == "TLSv1.2" {
		config.MaxVersion = tls.VersionTLS12
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "connect: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	var steps []Step
	token := ""
	for i, f := range r.Frames {
		step := Step{Step: fmt.Sprintf("%s %d %s", name, i+1, f.Method)}
		request, err := f.live(cfg, token, password)
		if err != nil {
			return steps, fmt.Errorf("frame %d: %w", i+1, err)
		}
		if _, err := conn.Write(request); err != nil {
			return steps, fmt.Errorf("frame %d: %w", i+1, err)
		}
		answer, err := readFrame(conn)
		if err != nil {
			return steps, fmt.Errorf("frame %d (%s): read the answer: %w", i+1, f.Method, err)
		}
		result, err := parseAnswer(ctx, f, answer)
		if err != nil {
			step.Detail = err.Error()
			steps = append(steps, step)
			continue
		}
		step.OK, step.Detail = slices.Contains(f.expected(), result.outcome), result.outcome+result.text
		step.Tokens = result.tokens
		if !step.OK {
			step.Detail += "; expected " + strings.Join(f.expected(), " or ")
		}
		if result.accessToken != "" {
			token = result.accessToken
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// live returns the request with what the recording could not know: credentials,
// access token, and a supply group whose key the server holds.
func (f frame) live(cfg Config, token, password string) ([]byte, error) {
	p, err := hex.DecodeString(f.Request)
	if err != nil || len(p) < 4 {
		return nil, fmt.Errorf("the recorded request is not hexadecimal")
	}
	body := p[4:]
	if f.Method == "signInWithPassword" && f.Args.Username == recordedUser {
		if body, err = substitute(body, stringField(3, f.Args.Username), stringField(3, cfg.User)); err != nil {
			return nil, err
		}
		if body, err = substitute(body, stringField(4, f.Args.Password), stringField(4, password)); err != nil {
			return nil, err
		}
	}
	if f.Args.AccessToken != "" {
		if body, err = substitute(body, stringField(2, f.Args.AccessToken), stringField(2, token)); err != nil {
			return nil, err
		}
	}
	if m := f.Args.MeterConfig; m != nil {
		if body, err = substitute(body, intField(10, m.SGC), intField(10, int32(cfg.Meters.SGC))); err != nil {
			return nil, err
		}
	}
	if n := f.Args.NewConfig; n != nil {
		if body, err = substitute(body, intField(1, n.ToSGC), intField(1, int32(cfg.Meters.SGC))); err != nil {
			return nil, err
		}
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), nil
}

// stringField is a binary-protocol field of type string with its header.
func stringField(id uint16, s string) []byte {
	p := binary.BigEndian.AppendUint16([]byte{11}, id)
	p = binary.BigEndian.AppendUint32(p, uint32(len(s)))
	return append(p, s...)
}

func intField(id uint16, n int32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16([]byte{8}, id), uint32(n))
}

// substitute replaces the one occurrence of old.
func substitute(p, old, by []byte) ([]byte, error) {
	if n := bytes.Count(p, old); n != 1 {
		return nil, fmt.Errorf("a field that must be replaced occurs %d times in the recorded request", n)
	}
	return bytes.Replace(p, old, by, 1), nil
}

// maxAnswer bounds an answer's frame.
const maxAnswer = 1 << 20

func readFrame(r io.Reader) ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[:])
	if n == 0 || n > maxAnswer {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	p := make([]byte, n)
	_, err := io.ReadFull(r, p)
	return p, err
}

// answer is what a call returned; outcome is "ok" or the eCode of an exception.
type answer struct {
	outcome, text string
	accessToken   string
	tokens        []string
}

// ok is the outcome of a call that returned a value.
const ok = "ok"

// parseAnswer checks that an answer is a well-formed reply to f: same name and
// sequence number, exactly one of value and exception, every required field, and
// nothing behind it.
func parseAnswer(ctx context.Context, f frame, p []byte) (answer, error) {
	buffer := thrift.NewTMemoryBufferLen(len(p))
	if _, err := buffer.Write(p); err != nil {
		return answer{}, err
	}
	protocol := thrift.NewTBinaryProtocolConf(buffer, &thrift.TConfiguration{
		MaxMessageSize: maxAnswer, TBinaryStrictRead: thrift.BoolPtr(true),
	})
	method, kind, seq, err := protocol.ReadMessageBegin(ctx)
	if err != nil {
		return answer{}, fmt.Errorf("not a message: %w", err)
	}
	if method != f.Method || seq != f.SeqID {
		return answer{}, fmt.Errorf("an answer to %s with sequence number %d, expected %d", method, seq, f.SeqID)
	}
	if kind == thrift.EXCEPTION {
		e := thrift.NewTApplicationException(thrift.UNKNOWN_APPLICATION_EXCEPTION, "")
		if err := e.Read(ctx, protocol); err != nil {
			return answer{}, fmt.Errorf("a malformed application exception: %w", err)
		}
		return answer{outcome: fmt.Sprintf("application exception %d", e.TypeId()), text: ": " + e.Error()}, nil
	}
	if kind != thrift.REPLY {
		return answer{}, fmt.Errorf("message type %d", kind)
	}
	result, err := readResult(ctx, protocol, f.Method)
	if err != nil {
		return answer{}, err
	}
	if rest := buffer.Len(); rest != 0 {
		return answer{}, fmt.Errorf("%d bytes behind the answer", rest)
	}
	return result, nil
}

// result is what the generated code's result structs have in common.
type result interface {
	thrift.TStruct
	IsSetSuccess() bool
	GetEx1() *prismtoken1.ApiException
	IsSetEx1() bool
}

func readResult(ctx context.Context, protocol thrift.TProtocol, method string) (answer, error) {
	r, ok := results()[method]
	if !ok {
		return answer{}, fmt.Errorf("the interface has no method %q", method)
	}
	if err := r.Read(ctx, protocol); err != nil {
		return answer{}, fmt.Errorf("a malformed result: %w", err)
	}
	switch {
	case r.IsSetSuccess() == r.IsSetEx1():
		return answer{}, fmt.Errorf("value and exception: both or neither")
	case r.IsSetEx1():
		return answer{outcome: r.GetEx1().ECode, text: ": " + r.GetEx1().EMsgEn}, nil
	}
	return success(r), nil
}

func results() map[string]result {
	return map[string]result{
		"ping":                   prismtoken1.NewTokenApiPingResult(),
		"signInWithPassword":     prismtoken1.NewTokenApiSignInWithPasswordResult(),
		"getStatus":              prismtoken1.NewTokenApiGetStatusResult(),
		"parseIdRecord":          prismtoken1.NewTokenApiParseIdRecordResult(),
		"loadTransactionLicense": prismtoken1.NewTokenApiLoadTransactionLicenseResult(),
		"issueCreditToken":       prismtoken1.NewTokenApiIssueCreditTokenResult(),
		"issueMeterTestToken":    prismtoken1.NewTokenApiIssueMeterTestTokenResult(),
		"issueMseToken":          prismtoken1.NewTokenApiIssueMseTokenResult(),
		"issueSetControlToken":   prismtoken1.NewTokenApiIssueSetControlTokenResult(),
		"issueKeyChangeTokens":   prismtoken1.NewTokenApiIssueKeyChangeTokensResult(),
		"verifyToken":            prismtoken1.NewTokenApiVerifyTokenResult(),
		"issueDitkChangeTokens":  prismtoken1.NewTokenApiIssueDitkChangeTokensResult(),
		"fetchTokenResult":       prismtoken1.NewTokenApiFetchTokenResultResult(),
		"ctsResetTidList":        prismtoken1.NewTokenApiCtsResetTidListResult(),
	}
}

func success(r result) answer {
	a := answer{outcome: ok}
	switch r := r.(type) {
	case *prismtoken1.TokenApiSignInWithPasswordResult:
		a.accessToken = r.Success.AccessToken
	case interface{ GetSuccess() []*prismtoken1.Token }:
		for _, t := range r.GetSuccess() {
			a.tokens = append(a.tokens, t.TokenDec)
		}
	case *prismtoken1.TokenApiIssueMeterTestTokenResult:
		a.tokens = []string{r.Success.TokenDec}
	case *prismtoken1.TokenApiVerifyTokenResult:
		a.text = ": " + r.Success.ValidationResult_
	}
	return a
}

// expected lists the outcomes that a live vending server may give to a frame.
func (f frame) expected() []string {
	switch f.Method {
	case "signInWithPassword":
		if f.Args.Username != recordedUser {
			return []string{"ESignin.Subject", "ESignin.Authentication"}
		}
	case "issueCreditToken", "issueMseToken":
		if f.Args.Flags != 0 {
			// The recordings name a time of 2023, outside the module's window.
			return []string{ok, "ESm", "ESts.VkExpired", "ESts.VkBeforeBdt"}
		}
	case "issueKeyChangeTokens":
		return []string{ok, "EKeystore.NotFound"}
	case "fetchTokenResult":
		if f.Args.ReqMessageID == "none" {
			return []string{"ECacheMiss"}
		}
		return []string{ok, "ECacheMiss"}
	case "loadTransactionLicense":
		return []string{"ESm", "EAuthentication.Permission"}
	case "ctsResetTidList":
		return []string{"EService.Disabled", "EAuthentication.Permission"}
	case "issueDitkChangeTokens":
		return []string{"EService.Disabled", "ESm", "EAuthentication.Permission"}
	}
	return []string{ok}
}
