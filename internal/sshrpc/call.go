package sshrpc

import (
	"context"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/failure"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// caller is Client as generated code sees it.
type caller Client

// Call sends one request and waits for its answer. A failure that the service
// reported comes back as an error of its kind.
func (c *caller) Call(ctx context.Context, method string, args, result thrift.TStruct) (thrift.ResponseMeta, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return thrift.ResponseMeta{}, c.broken
	}
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	started := time.Now()
	answer, err := c.exchange(ctx, method, args)
	if err != nil {
		if errkind.Is(err, errkind.Invalid) { // nothing was sent
			return thrift.ResponseMeta{}, err
		}
		// The answer may still be on its way and would be taken for the next one.
		_ = c.nc.Close()
		if ctx.Err() != nil {
			err = errkind.Errorf(errkind.Unavailable, "service %s did not answer %s within %s: %w",
				c.cfg.Service, method, time.Since(started).Round(time.Second), context.Cause(ctx))
		}
		c.broken = err
		return thrift.ResponseMeta{}, err
	}
	return thrift.ResponseMeta{}, c.decode(ctx, method, answer, result)
}

func (c *caller) exchange(ctx context.Context, method string, args thrift.TStruct) ([]byte, error) {
	conf := wire(maxAnswer)
	out := thrift.NewTMemoryBuffer()
	oprot := thrift.NewTBinaryProtocolConf(out, conf)
	std := thrift.NewTStandardClient(oprot, oprot)
	if err := std.Send(ctx, oprot, 1, method, args); err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "encode %s: %w", method, err)
	}
	if limit := (Limits{}).withDefaults().Frame; out.Len() > limit {
		return nil, errkind.Errorf(errkind.Invalid, "%s: a request of %d bytes is larger than %d", method, out.Len(), limit)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.nc.Close() })
	defer stop()
	if err := writeFrame(c.channel, out.Bytes()); err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "service %s at %s is gone: %w", c.cfg.Service, c.cfg.Address, err)
	}
	answer, err := readFrame(c.channel, maxAnswer, func() {})
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "service %s at %s ended the session before it answered %s: %w",
			c.cfg.Service, c.cfg.Address, method, err)
	}
	return answer, nil
}

func (c *caller) decode(ctx context.Context, method string, answer []byte, result thrift.TStruct) error {
	in := thrift.NewTMemoryBufferLen(0)
	_, _ = in.Write(answer)
	iprot := thrift.NewTBinaryProtocolConf(in, wire(len(answer)))
	std := thrift.NewTStandardClient(iprot, iprot)
	if err := std.Recv(ctx, iprot, 1, method, result); err != nil {
		return errkind.Errorf(errkind.Unavailable, "service %s did not understand %s, or its answer is not of this version: %w", c.cfg.Service, method, err)
	}
	if r, ok := result.(interface{ GetF() *failure.Failure }); ok && r.GetF() != nil {
		return FromFailure(r.GetF())
	}
	return nil
}
