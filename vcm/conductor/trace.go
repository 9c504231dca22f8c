package conductor

import (
	"fmt"
	"strings"
)

// public lists the commands whose parameters a trace may show; what is not
// listed is counted only. Keys travel wrapped in KL, tokens in VT.
func public(command string) bool {
	switch command {
	case "DI", "QI", "QD", "GA", "CQ", "VC", "VM", "VK", "KC", "KF", "KX", "KD", "QK", "QL", "RR", "RS":
		return true
	}
	return false
}

// traced returns a request's parameters for a trace.
func (r request) traced() string {
	if !public(r.command) {
		return fmt.Sprintf("(%d characters)", len(r.params))
	}
	return strings.ToValidUTF8(r.params, "?")
}
