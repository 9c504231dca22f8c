package conductor

import (
	"bufio"
	"context"
	"errors"
	"io"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// Stream answers the commands of one SSH session until the peer is done, is
// idle or slow, or ctx ends, and closes it. It returns nil if the peer ended it
// between two commands, or Restart did.
func (s *Server) Stream(ctx context.Context, name string, stream io.ReadWriteCloser) error {
	p := &peer{stream: stream}
	s.peers.addSession(p)
	defer s.peers.remove(p)
	return s.talk(ctx, name, p)
}

// talk answers a peer's commands.
func (s *Server) talk(ctx context.Context, name string, p *peer) (err error) {
	w := newWatch(p.stream)
	stop := context.AfterFunc(ctx, func() { _ = p.stream.Close() })
	defer func() {
		stop()
		w.stop()
		_ = p.stream.Close()
		if why := w.reason(); why != nil {
			err = why
		} else if ctx.Err() != nil || p.dismissed() {
			err = nil
		}
	}()
	c := newSession(s, name)
	named := tsm.By(ctx, c.actor.Actor)
	r := bufio.NewReaderSize(p.stream, 1024)
	var in, out []byte
	idle := "idle for " + s.cfg.IdleTimeout.String()
	slow := "a frame took longer than " + s.cfg.FrameTimeout.String()
	stuck := "the peer did not take a response for " + s.cfg.FrameTimeout.String()
	for {
		w.arm(s.cfg.IdleTimeout, idle)
		first, err := r.ReadByte()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !p.begin() {
			return nil
		}
		w.arm(s.cfg.FrameTimeout, slow)
		f, err := readFrame(first, r, &in)
		if err != nil {
			return err
		}
		w.disarm() // the module takes the time it takes
		line := c.answer(named, f.line)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		out = appendFrame(out[:0], f.prefix, line, c.settings.RawErrors)
		w.arm(s.cfg.FrameTimeout, stuck)
		if _, err := p.stream.Write(out); err != nil {
			return err
		}
		if !p.end() {
			return nil
		}
	}
}
