package main

import (
	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/vcm/maintenance"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
)

// tokenGate is what the token service and the tenant's tool ask before they
// issue a token.
func (m *module) tokenGate() maintenance.Gate {
	return maintenance.Gate{Mode: m.mode, Next: m.speed, Refusal: func() error { return pos.Faultf(pos.Disabled, maintenance.Reason) }}
}

// commandGate is what the SM API asks before a command that issues a token.
func (m *module) commandGate() maintenance.Gate {
	return maintenance.Gate{Mode: m.mode, Next: m.speed, Refusal: func() error {
		return &tsm.Error{Code: tsm.CodeVendInhibited, Text: maintenance.Reason}
	}}
}
