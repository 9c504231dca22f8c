package isolation

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Outcomes of an attempt besides the kernel's words for a refusal.
const (
	allowed = "allowed"
	killed  = "killed" // the VCM's process has ended
)

// orderTimeout bounds one attempt.
const orderTimeout = 45 * time.Second

// order tells the VCM to try something.
func (v *vcm) order(ctx context.Context, attack string, args map[string]string) (result, detail string, err error) {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", v.control)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	text, err := json.Marshal(map[string]any{"attack": attack, "args": args})
	if err != nil {
		return "", "", err
	}
	if _, err := c.Write(append(text, '\n')); err != nil {
		return "", "", err
	}
	answer, err := bufio.NewReader(c).ReadBytes('\n')
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return killed, "", nil
	case err != nil:
		return "", "", fmt.Errorf("%s in VCM %s: %w", attack, v.uuid, err)
	}
	var out struct{ Result, Detail string }
	if err := json.Unmarshal(answer, &out); err != nil {
		return "", "", err
	}
	if out.Result == "unknown attack" {
		return "", "", fmt.Errorf("VCM %s knows no attack %s", v.uuid, attack)
	}
	return out.Result, out.Detail, nil
}
