// Package platform is the service provider's view of his units: which are
// enrolled on this host, and their platform services.
package platform

import (
	"context"
	"strings"
	"time"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/orchestrator"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/internal/sshrpc"
	"github.com/tesserae-hsm/tesserae/internal/unitfile"
	"github.com/tesserae-hsm/tesserae/tenant/access"
	"github.com/tesserae-hsm/tesserae/tenant/enrol"
)

// Names of the platform's services.
const (
	SSHAdmin     = "sshadmin"
	Orchestrator = "orchestrator"
	Setup        = "setup"
	Monitor      = "monitor"
	Updater      = "updater"
)

// Units returns the enrolled units, or the one with the given ESN.
func Units(h *enrol.Home, esn string) ([]unitfile.Unit, error) {
	all, err := h.Units()
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errkind.Errorf(errkind.NotFound, "no HSM is enrolled on this host; see 'hsmadmin enroll'")
	}
	if esn == "" {
		return all, nil
	}
	for _, u := range all {
		if strings.EqualFold(u.ESN, esn) {
			return []unitfile.Unit{u}, nil
		}
	}
	return nil, errkind.Errorf(errkind.NotFound, "HSM %s is not enrolled on this host", esn)
}

// One returns the unit with the given ESN, or the only one.
func One(h *enrol.Home, esn string) (unitfile.Unit, error) {
	units, err := Units(h, esn)
	if err != nil {
		return unitfile.Unit{}, err
	}
	if len(units) > 1 {
		return unitfile.Unit{}, errkind.Errorf(errkind.Invalid, "%d HSMs are enrolled on this host; say which one with --esn", len(units))
	}
	return units[0], nil
}

// Hosting is the orchestrator service of one unit.
type Hosting struct {
	*orchestrator.OrchestratorClient
	Unit unitfile.Unit
	conn *sshrpc.Client
}

// Dial connects to the orchestrator service of a unit.
func Dial(ctx context.Context, h *enrol.Home, u unitfile.Unit, timeout time.Duration) (*Hosting, error) {
	conn, err := access.DialUnit(ctx, h, u, Orchestrator, timeout)
	if err != nil {
		return nil, err
	}
	return &Hosting{OrchestratorClient: orchestrator.NewOrchestratorClient(conn.Thrift()), Unit: u, conn: conn}, nil
}

// Close ends the connection.
func (h *Hosting) Close() { _ = h.conn.Close() }
