package etcdtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Fate is what becomes of a request and its answer.
type Fate int

// The fates.
const (
	Pass        Fate = iota
	LoseRequest      // it does not arrive
	LoseAnswer       // it happens, and nobody hears of it
	Silence          // the same, and the caller waits in vain
	Late             // nobody hears of it, and it arrives with Release
	Twice            // it arrives twice, and the second answer is heard
	Overtaken        // it arrives after everything that is late
)

// Proxy stands between clients and a member without TLS. It passes everything on
// but the requests that it was told a fate for.
type Proxy struct {
	t        testing.TB
	conn     *grpc.ClientConn
	server   *grpc.Server
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex
	about string
	fates []Fate
	held  []func() error
}

// NewProxy starts a proxy for the member at endpoint, which is one of Endpoints.
func NewProxy(t testing.TB, endpoint string) *Proxy {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(endpoint, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(frames{})))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{t: t, conn: conn, listener: l}
	p.server = grpc.NewServer(grpc.ForceServerCodecV2(frames{}), grpc.UnknownServiceHandler(p.handle), grpc.WaitForHandlers(true))
	p.running.Go(func() { _ = p.server.Serve(l) })
	t.Cleanup(func() {
		p.server.Stop()
		p.running.Wait()
		_ = conn.Close()
	})
	return p
}

// Endpoint is where the proxy listens.
func (p *Proxy) Endpoint() string { return "http://" + p.listener.Addr().String() }

// Next gives the next transactions that name about a fate each.
func (p *Proxy) Next(about string, fates ...Fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.about, p.fates = about, fates
}

// Release lets what is held arrive, and returns how much that is once it did.
func (p *Proxy) Release() int {
	p.t.Helper()
	p.mu.Lock()
	held := p.held
	p.held = nil
	p.mu.Unlock()
	for _, arrive := range held {
		if err := arrive(); err != nil {
			p.t.Errorf("a late request: %v", err)
		}
	}
	return len(held)
}

func (p *Proxy) fate(method string, request []byte) Fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.fates) == 0 || !strings.HasSuffix(method, "/Txn") || !bytes.Contains(request, []byte(p.about)) {
		return Pass
	}
	f := p.fates[0]
	p.fates = p.fates[1:]
	return f
}

func (p *Proxy) handle(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	ctx := in.Context()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, md.Copy())
	}
	if strings.HasSuffix(method, "/Watch") || strings.HasSuffix(method, "KeepAlive") {
		return p.stream(ctx, method, in)
	}
	var request []byte
	if err := in.RecvMsg(&request); err != nil {
		return err
	}
	answer, err := p.call(ctx, method, request)
	if err != nil {
		return err
	}
	return in.SendMsg(&answer)
}

// call is one request with one answer.
func (p *Proxy) call(ctx context.Context, method string, request []byte) (answer []byte, err error) {
	pass := func(ctx context.Context) error { return p.conn.Invoke(ctx, method, &request, &answer) }
	lost := status.Error(codes.Unavailable, "the proxy lost it")
	switch p.fate(method, request) {
	case LoseRequest:
		return nil, lost
	case LoseAnswer:
		if err := pass(ctx); err != nil {
			return nil, err
		}
		return nil, lost
	case Silence:
		if err := pass(ctx); err != nil {
			return nil, err
		}
		<-ctx.Done()
		return nil, ctx.Err()
	case Late:
		p.mu.Lock()
		p.held = append(p.held, func() error { return pass(p.t.Context()) })
		p.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	case Overtaken:
		p.Release()
	case Twice:
		if err := pass(ctx); err != nil {
			return nil, err
		}
	}
	err = pass(ctx)
	return answer, err
}

// stream passes messages both ways until the member ends it.
func (p *Proxy) stream(ctx context.Context, method string, in grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	p.running.Go(func() { // ends with the handler, whose stream is over then
		for {
			var m []byte
			if err := in.RecvMsg(&m); err != nil {
				_ = out.CloseSend()
				return
			}
			if out.SendMsg(&m) != nil {
				return
			}
		}
	})
	for {
		var m []byte
		if err := out.RecvMsg(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := in.SendMsg(&m); err != nil {
			return err
		}
	}
}

// frames is the codec of messages that are passed on unread.
type frames struct{}

func (frames) Name() string { return "proto" }

func (frames) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (frames) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
