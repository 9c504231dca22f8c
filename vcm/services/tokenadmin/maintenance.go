package tokenadmin

import (
	"context"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/vcm/maintenance"
)

func wireMaintenance(s maintenance.State) *prismadmin.Maintenance {
	return &prismadmin.Maintenance{On: s.On, Since: unix(s.Since), ChangedBy: s.By}
}

func maintenanceNotice(s maintenance.State) string {
	return "PToken.Maintenance The VCM is in maintenance mode since " + s.Since.UTC().Format(time.RFC3339) + ": it issues no tokens."
}

// MaintenanceShow tells the mode.
func (h *handler) MaintenanceShow(context.Context) (*prismadmin.Maintenance, error) {
	return wireMaintenance(h.Maintenance.State()), nil
}

// MaintenanceSet changes the mode.
func (h *handler) MaintenanceSet(ctx context.Context, on bool) (*prismadmin.Maintenance, error) {
	st, err := h.Maintenance.Set(ctx, h.actor.String(), on)
	if err != nil {
		return nil, err
	}
	return wireMaintenance(st), nil
}
