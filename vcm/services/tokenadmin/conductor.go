package tokenadmin

import (
	"context"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
)

// restartTimeout bounds the wait for commands under way.
const restartTimeout = 15 * time.Second

// ConductorShow tells what the Conductor does.
func (h *handler) ConductorShow(context.Context) (*prismadmin.Conductor, error) {
	st := h.Conductor.Status()
	return &prismadmin.Conductor{
		Address: h.ConductorAddress, Sockets: int32(st.Sockets), MaxSockets: int32(st.MaxSockets), SshSessions: int32(st.Sessions),
		TraceLevel: st.Trace.String(), Started: unix(st.Started), Restarts: int32(st.Restarts),
		Accepted: int64(st.Accepted), Refused: int64(st.Refused), Commands: int64(st.Commands),
	}, nil
}

// ConductorRestart ends every socket and session.
func (h *handler) ConductorRestart(ctx context.Context) (*prismadmin.Conductor, error) {
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	ended, err := h.Conductor.Restart(ctx, h.actor.String())
	h.Log.Info("Conductor restarted", "by", h.actor.String(), "ended", ended, "err", err)
	if err != nil {
		return nil, err
	}
	return h.ConductorShow(ctx)
}
