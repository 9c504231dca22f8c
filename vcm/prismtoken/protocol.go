package prismtoken

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"

	"github.com/apache/thrift/lib/go/thrift"
)

// frameProtocol is the library's binary protocol on a frame that is whole in
// memory: what calls have most of, it takes from the buffer and puts there
// without the library's way through a transport for every few octets. All else,
// and everything that does not fit, is the library's.
type frameProtocol struct {
	*thrift.TBinaryProtocol
	buf *bytes.Buffer
}

func newFrameProtocol(mem *thrift.TMemoryBuffer, conf *thrift.TConfiguration) *frameProtocol {
	return &frameProtocol{thrift.NewTBinaryProtocolConf(mem, conf), mem.Buffer}
}

// next returns n octets of the buffer, nil if there are fewer.
func (p *frameProtocol) next(n int) []byte {
	if p.buf.Len() < n {
		return nil
	}
	return p.buf.Next(n)
}

func (p *frameProtocol) ReadFieldBegin(ctx context.Context) (name string, kind thrift.TType, id int16, err error) {
	b := p.buf.Bytes()
	switch {
	case len(b) > 0 && b[0] == thrift.STOP:
		p.buf.Next(1)
		return "", thrift.STOP, 0, nil
	case len(b) < 3:
		return p.TBinaryProtocol.ReadFieldBegin(ctx)
	}
	p.buf.Next(3)
	return "", thrift.TType(b[0]), int16(binary.BigEndian.Uint16(b[1:])), nil
}

func (p *frameProtocol) ReadBool(ctx context.Context) (bool, error) {
	if b := p.next(1); b != nil {
		return b[0] == 1, nil
	}
	return p.TBinaryProtocol.ReadBool(ctx)
}

func (p *frameProtocol) ReadI16(ctx context.Context) (int16, error) {
	if b := p.next(2); b != nil {
		return int16(binary.BigEndian.Uint16(b)), nil
	}
	return p.TBinaryProtocol.ReadI16(ctx)
}

func (p *frameProtocol) ReadI32(ctx context.Context) (int32, error) {
	if b := p.next(4); b != nil {
		return int32(binary.BigEndian.Uint32(b)), nil
	}
	return p.TBinaryProtocol.ReadI32(ctx)
}

func (p *frameProtocol) ReadI64(ctx context.Context) (int64, error) {
	if b := p.next(8); b != nil {
		return int64(binary.BigEndian.Uint64(b)), nil
	}
	return p.TBinaryProtocol.ReadI64(ctx)
}

func (p *frameProtocol) ReadDouble(ctx context.Context) (float64, error) {
	if b := p.next(8); b != nil {
		return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
	}
	return p.TBinaryProtocol.ReadDouble(ctx)
}

// ReadString needs no limit: a string that is all in the frame is below the frame's.
func (p *frameProtocol) ReadString(ctx context.Context) (string, error) {
	if b := p.buf.Bytes(); len(b) >= 4 {
		if n := binary.BigEndian.Uint32(b); uint64(n) <= uint64(len(b)-4) {
			return string(p.buf.Next(4 + int(n))[4:]), nil
		}
	}
	return p.TBinaryProtocol.ReadString(ctx)
}

// Writes to a buffer in memory do not fail.

func (p *frameProtocol) WriteFieldBegin(_ context.Context, _ string, kind thrift.TType, id int16) error {
	p.buf.Write([]byte{byte(kind), byte(id >> 8), byte(id)})
	return nil
}

func (p *frameProtocol) WriteFieldStop(context.Context) error {
	return p.buf.WriteByte(thrift.STOP)
}

func (p *frameProtocol) WriteBool(_ context.Context, v bool) error {
	if v {
		return p.buf.WriteByte(1)
	}
	return p.buf.WriteByte(0)
}

func (p *frameProtocol) WriteI16(_ context.Context, v int16) error {
	p.buf.Write(binary.BigEndian.AppendUint16(p.buf.AvailableBuffer(), uint16(v)))
	return nil
}

func (p *frameProtocol) WriteI32(_ context.Context, v int32) error {
	p.buf.Write(binary.BigEndian.AppendUint32(p.buf.AvailableBuffer(), uint32(v)))
	return nil
}

func (p *frameProtocol) WriteI64(_ context.Context, v int64) error {
	p.buf.Write(binary.BigEndian.AppendUint64(p.buf.AvailableBuffer(), uint64(v)))
	return nil
}

func (p *frameProtocol) WriteDouble(ctx context.Context, v float64) error {
	return p.WriteI64(ctx, int64(math.Float64bits(v)))
}

func (p *frameProtocol) WriteString(_ context.Context, v string) error {
	p.buf.Write(append(binary.BigEndian.AppendUint32(p.buf.AvailableBuffer(), uint32(len(v))), v...))
	return nil
}
