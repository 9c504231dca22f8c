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
		return c.done(ctx, req, c.echo(req.params), nil)
	case "RR":
		if req.params != "" || len(c.last) == 0 {
			return c.done(ctx, req, tsm.CodeFormatError, nil)
		}
		c.note(ctx, req, tsm.CodeOK, nil)
		return c.last
	case "RS":
		if req.params != "" {
			return c.done(ctx, req, tsm.CodeFormatError, nil)
		}
		answer := c.done(ctx, req, tsm.CodeOK, nil)
		c.last = nil
		return answer
	}
	return c.done(ctx, req, tsm.CodeInvalidHeader, nil)
}

// echo returns what it is sent: a two-digit time-out, a three-digit length, data.
func (c *session) echo(params string) tsm.Code {
	if len(params) < 5 || !digits(params[:5]) || !printable(params[5:]) {
		return tsm.CodeFormatError
	}
	if n, err := strconv.Atoi(params[2:5]); err != nil || n != len(params)-5 {
		return tsm.CodeFormatError
	}
	c.payload = append(c.payload, params[2:]...)
	return tsm.CodeOK
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
