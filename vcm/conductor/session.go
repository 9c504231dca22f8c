package conductor

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// session is one socket's conversation. Its buffers serve each command in turn.
type session struct {
	server *Server
	peer   string
	actor  tsm.Request // as the audit log names the peer

	settings Settings // at this command
	fields   fields
	payload  payload
	line     []byte // the response in the making
	last     []byte // the last response, for GL?RR
}

func newSession(s *Server, peer string) *session {
	return &session{server: s, peer: peer, actor: tsm.Request{Actor: "conductor " + peer}}
}

// answer returns the response to a line, which is good until the next call. The
// context names the peer to the module.
func (c *session) answer(ctx context.Context, line []byte) []byte {
	c.settings = c.server.settings()
	c.payload.reset()
	req, code := parseLine(line)
	if code != tsm.CodeOK {
		return c.done(ctx, req, code, nil)
	}
	if req.group == "GL" {
		return c.general(ctx, req)
	}
	cmd, known := c.server.commands[tsm.Command(req.command)]
	if req.group != "SM" || !known || !c.server.cfg.Module.Supports(tsm.Command(req.command)) {
		return c.done(ctx, req, tsm.CodeInvalidHeader, nil)
	}
	if c.server.cfg.Module.Failure() != "" {
		return c.done(ctx, req, tsm.CodeAppError, nil)
	}
	if code := c.fields.decode(req.params, cmd.fields...); code != tsm.CodeOK {
		return c.done(ctx, req, code, nil)
	}
	if err := c.server.turn(ctx, tsm.Command(req.command)); err != nil {
		return c.done(ctx, req, tsm.CodeOf(err), err)
	}
	if !c.server.acquire(ctx) {
		return nil
	}
	err := cmd.run(ctx, c, &c.fields, &c.payload)
	c.server.release()
	return c.done(ctx, req, tsm.CodeOf(err), err)
}

// done is the one place where an outcome becomes a response. It logs the command
// and keeps the response for GL?RR.
func (c *session) done(ctx context.Context, req request, code tsm.Code, err error) []byte {
	group, command := req.group, req.command
	switch code {
	case tsm.CodeOK:
	case tsm.CodeChecksum, tsm.CodeInvalidHeader, tsm.CodeAppError, tsm.CodeTampered:
		group, command = "GL", "ER"
		c.payload.reset()
	case tsm.CodeExtended:
		var e *tsm.Error
		errors.As(err, &e)
		c.payload.reset()
		c.payload.text(e.Text)
	default:
		c.payload.reset()
	}
	c.line = appendResponse(c.line[:0], group, command, code, c.payload)
	c.note(ctx, req, code, err)
	if code == tsm.CodeChecksum {
		return c.line
	}
	c.last, c.line = c.line, c.last
	return c.last
}

// note counts and logs a command.
func (c *session) note(ctx context.Context, req request, code tsm.Code, err error) {
	c.server.peers.commands.Add(1)
	if err == nil && c.settings.Trace < TraceVerbose {
		return
	}
	var refusal *tsm.Error
	switch {
	case err != nil && !errors.As(err, &refusal) && ctx.Err() == nil:
		c.server.cfg.Log.Error("conductor: command failed", "peer", c.peer, "command", req.name(), "error", err)
	case c.settings.Trace >= TraceVerbose:
		attrs := []slog.Attr{slog.String("peer", c.peer), slog.String("command", req.name()), slog.String("status", string(code))}
		if refusal != nil {
			attrs = append(attrs, slog.String("reason", refusal.Text))
		}
		if c.settings.Trace >= TraceDebug {
			attrs = append(attrs, slog.String("parameters", req.traced()))
		}
		c.server.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "conductor", attrs...)
	}
}

func (r request) name() string {
	if r.group == "" {
		return "unreadable"
	}
	return r.group + "?" + r.command
}
