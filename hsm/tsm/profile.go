package tsm

import (
	"slices"
	"strings"
)

// Command is an SM command, without its direction.
type Command string

// The commands of the security-module API.
const (
	CommandDI Command = "DI"
	CommandQI Command = "QI"
	CommandQD Command = "QD"
	CommandGA Command = "GA"
	CommandCQ Command = "CQ"
	CommandVC Command = "VC"
	CommandVM Command = "VM"
	CommandVK Command = "VK"
	CommandVT Command = "VT"
	CommandKC Command = "KC"
	CommandKR Command = "KR"
	CommandKL Command = "KL"
	CommandKF Command = "KF"
	CommandKX Command = "KX"
	CommandKD Command = "KD"
	CommandQK Command = "QK"
	CommandCI Command = "CI"
	CommandQL Command = "QL"
)

// profile is what a firmware can do.
type profile struct {
	prefix           string // of the firmware id
	commands         []Command
	vendWhileLoading bool
}

// profiles is the one table of firmwares; the first prefix that fits applies.
func profiles() []profile {
	keys := []Command{CommandDI, CommandQI, CommandQD, CommandGA, CommandKC, CommandKR, CommandKL, CommandKF, CommandKX, CommandKD, CommandQK, CommandQL}
	return []profile{
		{prefix: "STS64V", commands: append(slices.Clone(keys),
			CommandVC, CommandVM, CommandVK, CommandVT, CommandCQ, CommandCI)},
	}
}

func profileOf(firmwareID string) (profile, bool) {
	for _, p := range profiles() {
		if strings.HasPrefix(firmwareID, p.prefix) {
			return p, true
		}
	}
	return profile{}, false
}

// Supports reports whether the module's firmware has a command.
func (m *Module) Supports(c Command) bool { return slices.Contains(m.profile.commands, c) }
