//go:build !hostile

package main

import (
	"context"
	"net"
)

// takenOver is what serves a listener of a VCM that an attacker has taken over:
// nothing, but in the program that the isolation suite builds for itself.
func takenOver(*module, string, net.Listener) func(context.Context) error { return nil }
