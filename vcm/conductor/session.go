package conductor

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// session is one socket's conversation.
type session struct {
	server *Server
	peer   string
	last   []byte // the last response, for GL?RR
}

// answer returns the response to a line.
func (c *session) answer(ctx context.Context, line []byte) []byte {
	req, code := parseLine(line)
	if code != tsm.CodeOK {
		return c.done(ctx, req, unattributed(code), code, nil)
	}
	if req.group == "GL" {
		return c.general(ctx, req)
	}
	cmd, known := c.server.commands[tsm.Command(req.command)]
	if req.group != "SM" || !known || !c.server.cfg.Module.Supports(tsm.Command(req.command)) {
		return c.done(ctx, req, unattributed(tsm.CodeInvalidHeader), tsm.CodeInvalidHeader, nil)
	}
	if c.server.cfg.Module.Failure() != "" {
		return c.done(ctx, req, unattributed(tsm.CodeAppError), tsm.CodeAppError, nil)
	}
	f, code := decodeFields(req.params, cmd.fields...)
	if code != tsm.CodeOK {
		return c.done(ctx, req, respond("SM", req.command, code, ""), code, nil)
	}
	var p payload
	if err := c.server.turn(ctx, tsm.Command(req.command)); err != nil {
		return c.done(ctx, req, c.result(req, &p, err), tsm.CodeOf(err), err)
	}
	if !c.server.acquire(ctx) {
		return nil
	}
	err := cmd.run(tsm.By(ctx, c.actor().Actor), c, &f, &p)
	c.server.release()
	return c.done(ctx, req, c.result(req, &p, err), tsm.CodeOf(err), err)
}

// result is the one place where an error becomes a response.
func (c *session) result(req request, p *payload, err error) []byte {
	code := tsm.CodeOf(err)
	switch code {
	case tsm.CodeOK:
		return respond("SM", req.command, code, p.String())
	case tsm.CodeInvalidHeader, tsm.CodeAppError, tsm.CodeTampered:
		return unattributed(code)
	case tsm.CodeExtended:
		var e *tsm.Error
		errors.As(err, &e)
		return respond("SM", req.command, code, new(payload).text(e.Text).String())
	}
	return respond("SM", req.command, code, "")
}

// done logs a command, keeps its response for GL?RR and returns it.
func (c *session) done(ctx context.Context, req request, response []byte, code tsm.Code, err error) []byte {
	cfg, trace := &c.server.cfg, c.server.settings().Trace
	c.server.peers.commands.Add(1)
	var refusal *tsm.Error
	switch {
	case err != nil && !errors.As(err, &refusal) && ctx.Err() == nil:
		cfg.Log.Error("conductor: command failed", "peer", c.peer, "command", req.name(), "error", err)
	case trace >= TraceVerbose:
		attrs := []slog.Attr{slog.String("peer", c.peer), slog.String("command", req.name()), slog.String("status", string(code))}
		if refusal != nil {
			attrs = append(attrs, slog.String("reason", refusal.Text))
		}
		if trace >= TraceDebug {
			attrs = append(attrs, slog.String("parameters", req.traced()))
		}
		cfg.Log.LogAttrs(ctx, slog.LevelInfo, "conductor", attrs...)
	}
	if code != tsm.CodeChecksum {
		c.last = response
	}
	return response
}

func (r request) name() string {
	if r.group == "" {
		return "unreadable"
	}
	return r.group + "?" + r.command
}
