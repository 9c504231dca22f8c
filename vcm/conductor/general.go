package conductor

import (
	"context"
	"strconv"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
)

// general answers the GL commands. They do not go into the module.
func (c *session) general(ctx context.Context, req request) []byte {
	switch req.command {
	case "EC":
		return c.echo(ctx, req)
	case "RR":
		if req.params != "" || c.last == nil {
			return c.done(ctx, req, respond("GL", "RR", tsm.CodeFormatError, ""), tsm.CodeFormatError, nil)
		}
		return c.done(ctx, req, c.last, tsm.CodeOK, nil)
	case "RS":
		if req.params != "" {
			return c.done(ctx, req, respond("GL", "RS", tsm.CodeFormatError, ""), tsm.CodeFormatError, nil)
		}
		answer := c.done(ctx, req, respond("GL", "RS", tsm.CodeOK, ""), tsm.CodeOK, nil)
		c.last = nil
		return answer
	}
	return c.done(ctx, req, unattributed(tsm.CodeInvalidHeader), tsm.CodeInvalidHeader, nil)
}

// echo returns what it is sent: a two-digit time-out, a three-digit length, data.
func (c *session) echo(ctx context.Context, req request) []byte {
	p := req.params
	if len(p) < 5 || !digits(p[:5]) || !printable(p[5:]) {
		return c.done(ctx, req, respond("GL", "EC", tsm.CodeFormatError, ""), tsm.CodeFormatError, nil)
	}
	if n, err := strconv.Atoi(p[2:5]); err != nil || n != len(p)-5 {
		return c.done(ctx, req, respond("GL", "EC", tsm.CodeFormatError, ""), tsm.CodeFormatError, nil)
	}
	return c.done(ctx, req, respond("GL", "EC", tsm.CodeOK, p[2:]), tsm.CodeOK, nil)
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
