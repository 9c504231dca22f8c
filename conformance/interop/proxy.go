package interop

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

// The second application record of at least this size that a client sends is its
// second request: a TLS 1.3 client's Finished is shorter, and the smallest
// request of an issuing client, sign-in, is longer.
const (
	applicationData = 23
	smallestRequest = 90
	requestToLose   = 2
)

// lossy forwards TLS connections to a server and loses one answer: that to the
// second request it sees. The request still reaches the server, and the
// connection is closed once the server has answered. Later ones pass untouched.
type lossy struct {
	listener net.Listener
	server   string
	group    sync.WaitGroup

	mu    sync.Mutex
	seen  int
	lost  bool
	conns map[net.Conn]bool
}

// loseOne starts a proxy on the server's own address, so that the name in the
// server's certificate is right for it too.
func loseOne(ctx context.Context, server string) (*lossy, error) {
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("a proxy beside %s: %w", server, err)
	}
	p := &lossy{listener: l, server: server, conns: map[net.Conn]bool{}}
	p.group.Go(p.accept)
	return p, nil
}

// Address is where clients connect.
func (p *lossy) Address() string { return p.listener.Addr().String() }

// Lost reports whether an answer was lost.
func (p *lossy) Lost() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Close ends every connection and waits.
func (p *lossy) Close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.group.Wait()
}

func (p *lossy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // Close
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.keep(client, server)
		end := sync.OnceFunc(func() { p.drop(client, server) })
		lose := make(chan struct{})
		p.group.Go(func() { defer end(); p.requests(server, client, lose) })
		p.group.Go(func() { defer end(); answers(client, server, lose) })
	}
}

// requests forwards a client's TLS records, and closes lose before the request
// whose answer is to be lost.
func (p *lossy) requests(server io.Writer, client io.Reader, lose chan struct{}) {
	for {
		record := make([]byte, 5, 5+1<<14)
		if _, err := io.ReadFull(client, record); err != nil {
			return
		}
		length := int(binary.BigEndian.Uint16(record[3:]))
		record = append(record, make([]byte, length)...)
		if _, err := io.ReadFull(client, record[5:]); err != nil {
			return
		}
		if record[0] == applicationData && length >= smallestRequest && p.chosen() {
			close(lose)
		}
		if _, err := server.Write(record); err != nil {
			return
		}
	}
}

// chosen counts a request and says whether it is the one.
func (p *lossy) chosen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen++
	if p.seen != requestToLose {
		return false
	}
	p.lost = true
	return true
}

// answers forwards what the server sends until an answer is to be lost.
func answers(client io.Writer, server io.Reader, lose <-chan struct{}) {
	buf := make([]byte, 1<<15)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-lose:
			return
		default:
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *lossy) keep(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
}

func (p *lossy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}
