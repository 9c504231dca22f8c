package rig

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Maker makes the maker's keys and a unit with its warrant.
func (r *Rig) Maker(ctx context.Context) error {
	if _, err := r.Run(ctx, Maker, "vendor", "root", "--dir", r.Path("maker", "keys")); err != nil {
		return err
	}
	if _, err := r.Run(ctx, Maker, "hsmd", append([]string{"init", "--state", r.Path("unit")}, r.InitFlags...)...); err != nil {
		return err
	}
	if _, err := r.Run(ctx, Maker, "vendor", "warrant", "--dir", r.Path("maker", "keys"),
		"--request", r.Path("unit", "identity-request"), "--out", r.Mail("unit.warrant")); err != nil {
		return err
	}
	_, err := r.Run(ctx, Maker, "hsmd", "warrant", "--state", r.Path("unit"), "--maker-root", r.MakerRoot(), r.Mail("unit.warrant"))
	return err
}

// MakerRoot is the maker's public root key, which everybody pins.
func (r *Rig) MakerRoot() string { return r.Path("maker", "keys", "root.pub") }

// Mail is a file that one role sends to another.
func (r *Rig) Mail(name string) string {
	_ = os.MkdirAll(r.Path("mail"), 0o700)
	return r.Path("mail", name)
}

// Unit starts the module and the orchestrator on a network of their own.
func (r *Rig) Unit(ctx context.Context, orchestratorFlags ...string) (hsmd, orchestratord *Daemon, err error) {
	socket := r.Path("hsmd.sock")
	hsmd, err = r.Start(Provider, "hsmd", append([]string{"run", "--state", r.Path("unit"), "--socket", socket}, r.UnitFlags...)...)
	if err != nil {
		return nil, nil, err
	}
	if err := r.Await(ctx, "hsmd's socket", exists(socket)); err != nil {
		return nil, nil, err
	}
	args := append([]string{"run", "--state", r.Path("platform"), "--hsm-socket", socket,
		"--vcmd", filepath.Join(r.bin, "vcmd"), "--network", r.Network()}, orchestratorFlags...)
	orchestratord, err = r.Start(Provider, "orchestratord", args...)
	if err != nil {
		return nil, nil, err
	}
	return hsmd, orchestratord, r.Await(ctx, "the platform's services", exists(r.UnitFile()))
}

// UnitFile is what the host sees of the unit before it is enrolled.
func (r *Rig) UnitFile() string { return r.Path("platform", "unit.json") }

// Network is a loopback subnet drawn at random, where nobody listens, so that rigs
// do not meet. Another's VCM that does not run is not seen.
func (r *Rig) Network() string {
	taken := listening()
	for {
		var b [2]byte
		_, _ = rand.Read(b[:])
		net := [2]byte{64 + b[0]%62, b[1]}
		if !taken[net] || len(taken) > 62*256/2 {
			return fmt.Sprintf("127.%d.%d.0/24", net[0], net[1])
		}
	}
}

// listening are the second and third bytes of the loopback addresses in use.
func listening() map[[2]byte]bool {
	out := map[[2]byte]bool{}
	p, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(p)) {
		f := strings.Fields(line)
		if len(f) < 2 || len(f[1]) < 8 {
			continue
		}
		// The address is four bytes in the machine's order.
		a, err := hex.DecodeString(f[1][:8])
		if err == nil && a[3] == 127 {
			out[[2]byte{a[2], a[1]}] = true
		}
	}
	return out
}

// EnrolProvider gives the provider's tools their keys.
func (r *Rig) EnrolProvider(ctx context.Context) error {
	_, err := r.Run(ctx, Provider, "hsmadmin", "enroll", "--unit", r.UnitFile(), "--maker-root", r.MakerRoot())
	return err
}

func exists(path string) func() bool {
	return func() bool {
		_, err := os.Stat(path)
		return err == nil
	}
}
