package lifecycle

import (
	"encoding/json"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/vcmcontrol"
)

// Record is everything the provider keeps about one VCM. It holds no secret.
type Record struct {
	UUID     string `json:"uuid"`
	ESN      string `json:"esn"`
	ModuleID string `json:"moduleId,omitempty"`
	State    State  `json:"state"`
	// Pending marks a VCM whose creation is not complete: it holds its place
	// under the limits and its address, is shown to nobody, and is rolled back
	// if the orchestrator dies before the creation was acknowledged.
	Pending    bool       `json:"pending,omitempty"`
	Properties Properties `json:"properties"`
	RequestID  string     `json:"requestId,omitempty"` // of the create request
	// SSHAdminKey is the tenant's first key for the VCM's sshadmin service.
	SSHAdminKey string    `json:"sshAdminKey"`
	Created     time.Time `json:"created"` // module's clock
	Changed     time.Time `json:"changed"` // module's clock
	Reason      string    `json:"reason,omitempty"`
	Restarts    int       `json:"restarts"`
	// Slot numbers the VCMs of a unit: its uid is the range's first plus Slot.
	Slot int `json:"slot"`
	// Level and Controls are the isolation of the last successful start.
	Level    string               `json:"level,omitempty"`
	Controls []vcmcontrol.Control `json:"controls,omitempty"`
	// TestMode is whether the unit was in CTS test mode at the last successful
	// start: the VCM's tokens are predictable.
	TestMode bool `json:"testMode,omitempty"`
	// Finalised is false while the VCM may hold audit entries that its tenant
	// has not exported; unknown counts as not finalised.
	Finalised bool `json:"finalised,omitempty"`
	// File is the configuration file that creation gave to the tenant.
	File []byte `json:"file,omitempty"`
}

// Properties are what tenant and provider agreed on.
type Properties struct {
	Name             string `json:"name"`
	Autostart        bool   `json:"autostart"`
	RestrictStartup  bool   `json:"restrictStartup"`
	SerialCardreader bool   `json:"serialCardreader"`
	Features         uint32 `json:"features"`
	IPAddress        string `json:"ipAddress"`
	ConductorPort    uint16 `json:"conductorPort"`
	DiskQuota        int64  `json:"diskQuota"`
	TenantRequestKey string `json:"tenantRequestKey"` // authorized_keys form
}

// Marshal returns the record's stored form.
func (r Record) Marshal() ([]byte, error) { return json.Marshal(r) }

// Parse reads a stored record. A record of an unknown state is refused: it was
// written by a version that knows more.
func Parse(p []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(p, &r); err != nil {
		return Record{}, errkind.Errorf(errkind.Integrity, "VCM record: %w", err)
	}
	if r.Properties.ConductorPort == 0 { // it was stored when there was no choice
		r.Properties.ConductorPort = vcmcontrol.DefaultConductorPort
	}
	for _, s := range States() {
		if r.State == s {
			return r, nil
		}
	}
	return Record{}, errkind.Errorf(errkind.Integrity, "VCM record %s: unknown state %q", r.UUID, r.State)
}
