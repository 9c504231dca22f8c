package prismtoken

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/apache/thrift/lib/go/thrift"
)

const (
	frameHeader = 4
	// smallFrame is what any connection may send; larger frames share an allowance.
	smallFrame  = 16 << 10
	largeFrames = 32
	// keptBuffer is the largest buffer that is kept for the next message.
	keptBuffer = 64 << 10
	// readStep is how much room is made at a time: a client that announces much
	// and sends little must not cost much.
	readStep = 16 << 10
)

// frameError is a frame length that no message has.
type frameError struct {
	size  int32
	limit int
}

func (e *frameError) Error() string {
	return fmt.Sprintf("frame of %d bytes: expected 0..%d", e.size, e.limit)
}

// wholeFrame reports whether p has all of the frame that it begins with.
func wholeFrame(p []byte) bool {
	return len(p) >= frameHeader && uint64(len(p)-frameHeader) >= uint64(binary.BigEndian.Uint32(p))
}

// frameSize completes a header of which have octets were read.
func frameSize(r io.Reader, header *[frameHeader]byte, have, limit int) (int, error) {
	if _, err := io.ReadFull(r, header[have:]); err != nil {
		return 0, err
	}
	size := int32(binary.BigEndian.Uint32(header[:]))
	if size < 0 || int64(size) > int64(limit) {
		return 0, &frameError{size, limit}
	}
	return int(size), nil
}

// Types of application exceptions.
const (
	unknownMethod      = thrift.UNKNOWN_METHOD
	invalidMessageType = thrift.INVALID_MESSAGE_TYPE_EXCEPTION
	internalError      = thrift.INTERNAL_ERROR
	protocolError      = thrift.PROTOCOL_ERROR
)

// codec holds the buffers of one message and its answer.
type codec struct {
	in       []byte
	inMem    *thrift.TMemoryBuffer
	inProto  *frameProtocol
	outMem   *thrift.TMemoryBuffer
	outProto *frameProtocol
}

func newCodec(limit int) *codec {
	strict := true
	conf := &thrift.TConfiguration{
		MaxMessageSize: int32(limit), MaxFrameSize: int32(limit),
		TBinaryStrictRead: &strict, TBinaryStrictWrite: &strict,
	}
	x := &codec{inMem: &thrift.TMemoryBuffer{Buffer: new(bytes.Buffer)}, outMem: &thrift.TMemoryBuffer{Buffer: new(bytes.Buffer)}}
	x.inProto = newFrameProtocol(x.inMem, conf)
	x.outProto = newFrameProtocol(x.outMem, conf)
	return x
}

// keep reports whether the buffers are small enough for the next message.
func (x *codec) keep() bool { return cap(x.in) <= keptBuffer && x.outMem.Cap() <= keptBuffer }

// read takes a frame's payload. Memory follows what has arrived.
func (x *codec) read(r io.Reader, size int) error {
	x.in = x.in[:0]
	for len(x.in) < size {
		step := min(readStep, size-len(x.in))
		start := len(x.in)
		if cap(x.in) < start+step {
			grown := make([]byte, start, start+max(step, min(start, size-start)))
			copy(grown, x.in)
			x.in = grown
		}
		x.in = x.in[:start+step]
		n, err := io.ReadFull(r, x.in[start:])
		if err != nil {
			x.in = x.in[:start+n]
			return err
		}
	}
	*x.inMem.Buffer = *bytes.NewBuffer(x.in)
	return nil
}

// begin starts an answer, leaving room for the frame's length.
func (x *codec) begin() {
	x.outMem.Reset()
	x.outMem.Write(make([]byte, frameHeader))
}

// frame completes the answer.
func (x *codec) frame() []byte {
	out := x.outMem.Bytes()
	binary.BigEndian.PutUint32(out, uint32(len(out)-frameHeader))
	return out
}

// exception answers with an application exception.
func (x *codec) exception(name string, seq int32, kind int32, text string) []byte {
	ctx := context.Background() // writes to memory do not wait
	x.begin()
	e := thrift.NewTApplicationException(kind, text)
	if x.outProto.WriteMessageBegin(ctx, name, thrift.EXCEPTION, seq) != nil || e.Write(ctx, x.outProto) != nil {
		x.begin()
	}
	return x.frame()
}

// reply answers with a result.
func (x *codec) reply(ctx context.Context, name string, seq int32, result thrift.TStruct) ([]byte, error) {
	x.begin()
	if err := x.outProto.WriteMessageBegin(ctx, name, thrift.REPLY, seq); err != nil {
		return nil, err
	}
	if err := result.Write(ctx, x.outProto); err != nil {
		return nil, err
	}
	return x.frame(), nil
}
