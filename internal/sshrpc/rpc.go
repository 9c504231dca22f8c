package sshrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"github.com/apache/thrift/lib/go/thrift"
	gssh "github.com/gliderlabs/ssh"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/failure"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// serveRPC answers one call after another until the client ends the session.
func (s *server) serveRPC(ctx context.Context, c *conn, who Session, sess gssh.Session) error {
	processor := s.cfg.Processor(who)
	for {
		// A peer that stops in the middle of a message loses its connection:
		// SSH channels have no deadlines.
		var late *time.Timer
		request, err := readFrame(sess, s.cfg.Limits.Frame, func() {
			late = time.AfterFunc(s.cfg.Limits.FrameTime, func() { _ = c.Close() })
		})
		if late != nil {
			late.Stop()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !c.enter(nil) {
			return nil
		}
		err = s.call(ctx, c, who, processor, sess, request)
		c.leave()
		if err != nil {
			return err
		}
	}
}

// call answers one request; an error ends the session.
func (s *server) call(ctx context.Context, c *conn, who Session, p thrift.TProcessor, w io.Writer, request []byte) error {
	answer, err := s.process(ctx, who, p, request)
	if err != nil {
		return err
	}
	late := time.AfterFunc(s.cfg.Limits.FrameTime, func() { _ = c.Close() })
	defer late.Stop()
	return writeFrame(w, answer)
}

func (s *server) process(ctx context.Context, who Session, p thrift.TProcessor, request []byte) ([]byte, error) {
	// No container of the request can have more elements than it has bytes.
	head, in, rest := message(wire(len(request)), request)
	conf := wire(maxAnswer)
	method, kind, seq, err := head.ReadMessageBegin(ctx)
	if err != nil || kind != thrift.CALL {
		return nil, errkind.Errorf(errkind.Invalid, "the frame is no Thrift call")
	}
	out := thrift.NewTMemoryBuffer()
	oprot := thrift.NewTBinaryProtocolConf(out, conf)
	failed := contain(func() error {
		_, err := p.Process(ctx, in, oprot)
		return err
	})
	// The generated code has written an answer for whatever happened, and for
	// an undeclared error that is its full text; replace it.
	if answered, ok := applicationError(ctx, conf, out.Bytes()); ok && answered != thrift.INTERNAL_ERROR {
		return out.Bytes(), nil
	}
	var declared *failure.Failure
	switch {
	case failed == nil || errors.As(failed, &declared):
		if rest.Len() > 0 {
			return nil, errkind.Errorf(errkind.Invalid, "%d bytes follow the call in its frame", rest.Len())
		}
		if out.Len() > maxAnswer {
			failed = errkind.Errorf(errkind.Limit, "the answer of %d bytes is larger than %d; ask for less at once", out.Len(), maxAnswer)
			break
		}
		return out.Bytes(), nil
	case errkind.Is(failed, errkind.Internal):
		s.log.Error("call failed", "method", method, "remote", who.Remote.String(), "error", failed.Error())
	}
	return failureAnswer(ctx, conf, method, seq, failed)
}

// contain turns a panic into an error.
func contain(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}

// message opens request twice: once to look at its head, once to process it.
func message(conf *thrift.TConfiguration, request []byte) (head, in thrift.TProtocol, rest *thrift.TMemoryBuffer) {
	peek, rest := thrift.NewTMemoryBufferLen(0), thrift.NewTMemoryBufferLen(0)
	_, _ = peek.Write(request[:min(len(request), 512)])
	_, _ = rest.Write(request)
	return thrift.NewTBinaryProtocolConf(peek, conf), thrift.NewTBinaryProtocolConf(rest, conf), rest
}

func wire(limit int) *thrift.TConfiguration {
	strict := true
	return &thrift.TConfiguration{
		MaxMessageSize: int32(limit), MaxFrameSize: int32(limit),
		TBinaryStrictRead: &strict, TBinaryStrictWrite: &strict,
	}
}

// applicationError returns the type of the exception that answer carries.
func applicationError(ctx context.Context, conf *thrift.TConfiguration, answer []byte) (int32, bool) {
	b := thrift.NewTMemoryBufferLen(0)
	_, _ = b.Write(answer)
	p := thrift.NewTBinaryProtocolConf(b, conf)
	_, kind, _, err := p.ReadMessageBegin(ctx)
	if err != nil || kind != thrift.EXCEPTION {
		return 0, false
	}
	x := thrift.NewTApplicationException(thrift.UNKNOWN_APPLICATION_EXCEPTION, "")
	if err := x.Read(ctx, p); err != nil {
		return thrift.INTERNAL_ERROR, true
	}
	return x.TypeId(), true
}

// failureField is the field of every generated result that holds the failure:
// each method "throws (1: failure.Failure f)".
const failureField = 1

// failureAnswer is the reply that the generated code writes for a declared failure.
func failureAnswer(ctx context.Context, conf *thrift.TConfiguration, method string, seq int32, err error) ([]byte, error) {
	var f *failure.Failure
	if !errors.As(Failure(err), &f) {
		return nil, err
	}
	out := thrift.NewTMemoryBuffer()
	p := thrift.NewTBinaryProtocolConf(out, conf)
	for _, step := range []func() error{
		func() error { return p.WriteMessageBegin(ctx, method, thrift.REPLY, seq) },
		func() error { return p.WriteStructBegin(ctx, method+"_result") },
		func() error { return p.WriteFieldBegin(ctx, "f", thrift.STRUCT, failureField) },
		func() error { return f.Write(ctx, p) },
		func() error { return p.WriteFieldEnd(ctx) },
		func() error { return p.WriteFieldStop(ctx) },
		func() error { return p.WriteStructEnd(ctx) },
		func() error { return p.WriteMessageEnd(ctx) },
		func() error { return p.Flush(ctx) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}
