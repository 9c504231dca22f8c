package conductor

import (
	"context"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Speed lets issuing commands pass at the rate that the VCM is rated for.
type Speed interface {
	Take(ctx context.Context) error
}

// turn waits for the VCM's turn where cmd issues a token. What it refuses is
// answered as inhibited vending: the command may be repeated.
func (s *Server) turn(ctx context.Context, cmd tsm.Command) error {
	switch cmd {
	case tsm.CommandVC, tsm.CommandVM, tsm.CommandVK:
	default:
		return nil
	}
	if s.cfg.Speed == nil {
		return nil
	}
	err := s.cfg.Speed.Take(ctx)
	if errkind.Is(err, errkind.Limit) {
		return &tsm.Error{Code: tsm.CodeVendInhibited, Text: err.Error()}
	}
	return err
}
