package sshrpc

import (
	"context"
	"io"

	gssh "github.com/gliderlabs/ssh"
)

// serveRaw gives the session to the service as a byte stream.
func (s *server) serveRaw(ctx context.Context, c *conn, who Session, sess gssh.Session) error {
	in, feed := io.Pipe()
	if !c.enter(func() { _ = feed.Close() }) {
		return nil
	}
	defer c.leave()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, err := io.Copy(feed, sess)
		_ = feed.CloseWithError(err) // nil: io.EOF
	}()
	err := s.cfg.Raw(ctx, who, stream{in: in, sess: sess})
	_ = in.Close()
	_ = sess.Exit(0) // ends the copy
	<-copied
	return err
}

// stream is a raw session: its input can be ended from outside.
type stream struct {
	in   *io.PipeReader
	sess gssh.Session
}

func (s stream) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s stream) Write(p []byte) (int, error) { return s.sess.Write(p) }
func (s stream) Close() error {
	_ = s.in.Close()
	return s.sess.CloseWrite()
}
