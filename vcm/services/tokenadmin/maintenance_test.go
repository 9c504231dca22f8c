package tokenadmin_test

import (
	"slices"
	"testing"
)

// TestMaintenance changes the mode: who and when is shown, noticed and audited,
// and a change to what it is already is none.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if m := must(r.MaintenanceShow(ctx))(t); m.On || m.Since != 0 || m.ChangedBy != "" {
		t.Errorf("a new VCM: %+v", m)
	}
	for _, on := range []bool{true, false} {
		before := len(r.entries)
		m := must(r.MaintenanceSet(ctx, on))(t)
		again := must(r.MaintenanceSet(ctx, on))(t)
		if m.On != on || m.Since != epoch.Unix() || m.ChangedBy == "" || *again != *m {
			t.Errorf("set %v: %+v, again %+v", on, m, again)
		}
		if got := slices.Contains(alerts(must(r.Status(ctx))(t)), "PToken.Maintenance"); got != on {
			t.Errorf("set %v: noticed %v", on, got)
		}
		added := r.entries[before:]
		if len(added) != 1 || added[0].Kind != "maintenance.set" || added[0].Actor != m.ChangedBy || added[0].Detail["before"] == added[0].Detail["after"] {
			t.Errorf("set %v: audited %+v", on, added)
		}
	}
}
