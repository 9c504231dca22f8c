package hsmapi

import (
	"context"
	"os"

	"github.com/tesserae-hsm/tesserae/hsm/hsmapi/keyfd"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/fdrpc"
)

// Channel is a vcmd's device channel. Its methods may be called concurrently.
type Channel struct{ *link }

// NewChannel uses the inherited descriptor f, which it closes.
func NewChannel(f *os.File) (*Channel, error) {
	uc, err := fdrpc.FromFile(f)
	if err != nil {
		return nil, errkind.Errorf(errkind.Invalid, "device channel: %w", err)
	}
	return &Channel{newLink(uc)}, nil
}

// Open asks for the partition and its key, once. The key lives in memory that
// is neither swapped nor dumped; Destroy erases it.
func (c *Channel) Open(ctx context.Context) (Opened, *keyfd.Key, error) {
	var o Opened
	files, err := c.conn.Call(ctx, MethodOpen, nil, &o)
	if err != nil {
		return Opened{}, nil, err
	}
	if len(files) != 1 {
		for _, f := range files {
			_ = f.Close()
		}
		return Opened{}, nil, errkind.Errorf(errkind.Integrity, "open: the module sent %d descriptors, not the key's", len(files))
	}
	key, err := keyfd.Take(files[0], KeySize)
	if err != nil {
		return Opened{}, nil, err
	}
	return o, key, nil
}

// Resume goes on with the partition that an earlier channel has opened.
func (c *Channel) Resume(ctx context.Context, ticket []byte) (Opened, error) {
	var o Opened
	err := c.conn.Ask(ctx, MethodResume, Resume{Ticket: ticket}, &o)
	return o, err
}

// Dismissed reports, once Done is closed, whether the unit said that it ends.
func (c *Channel) Dismissed() bool { return c.dismissed.Load() }

// Raise raises the partition's monotonic counter to v if that is higher and
// returns where it stands. The answer comes after the change is durable.
func (c *Channel) Raise(ctx context.Context, v uint64) (uint64, error) {
	var out Counter
	err := c.conn.Ask(ctx, MethodCounter, Counter{Value: v}, &out)
	return out.Value, err
}

// SignModule returns an armored SSHSIG by the unit key over a module's public
// key record, which must begin with ModulePrefix of the partition's module id.
func (c *Channel) SignModule(ctx context.Context, text string) (string, error) {
	var sig Signature
	err := c.conn.Ask(ctx, MethodSignModule, SignModule{Text: text}, &sig)
	return sig.Armored, err
}

// Lease asks for a share of the unit's rated capacity.
func (c *Channel) Lease(ctx context.Context, tokens int) (Leased, error) {
	var out Leased
	err := c.conn.Ask(ctx, MethodLease, Lease{Tokens: tokens}, &out)
	return out, err
}
