package hosting

import (
	"net/netip"
	"slices"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// bind takes v's ports unless it has them. It keeps them from its creation to
// its deletion: whoever else is on this host, another unit's VCMs included, cannot
// have its address while it is stopped.
func (h *Host) bind(v *vcm) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	to := place(v.rec.Properties)
	if v.place == to {
		return nil
	}
	sockets, err := network.Reserve(to, v.sockets...)
	if err != nil {
		return err
	}
	h.letGo(v, sockets...)
	v.place, v.sockets = to, sockets
	return nil
}

func place(p lifecycle.Properties) network.Place {
	return network.Place{Address: p.IPAddress, ConductorPort: p.ConductorPort}
}

// letGo gives v's ports up, and its address as far as we made it the host's.
// Those in next stay, and so does their address. v.mu is held.
func (h *Host) letGo(v *vcm, next ...network.Socket) {
	if v.place.Address == "" {
		return
	}
	network.CloseAll(v.sockets, next...)
	if !slices.ContainsFunc(next, func(s network.Socket) bool { return slices.Contains(v.sockets, s) }) {
		h.release(v.place.Address)
	}
	v.place, v.sockets = network.Place{}, nil
}

// release takes back what made an address local to the host.
func (h *Host) release(address string) {
	if err := network.Release(address); err != nil {
		h.cfg.Log.Warn("an address that no VCM has stays local to the host", "address", address, "err", err)
	}
}

// keep is bind for a VCM that is not about to start: its ports may well be
// another's for now, such as those of its own former process.
func (h *Host) keep(v *vcm) {
	err := h.bind(v)
	v.mu.Lock()
	first := err != nil && !v.homeless
	v.homeless = err != nil
	v.mu.Unlock()
	if first {
		h.cfg.Log.Warn("the ports of a VCM are not reserved; tried again each second", "uuid", v.uuid, "err", err)
	}
}

// listen lets v's clients connect and returns its sockets. They listen until v
// stops or does not start, so that clients of a process that was lost wait for the
// next one instead of being refused.
func (h *Host) listen(v *vcm) ([]network.Socket, error) {
	if err := h.bind(v); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sockets, network.Listen(v.sockets)
}

// refuse cuts v's clients off and refuses new ones.
func (h *Host) refuse(v *vcm) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := network.Refuse(v.sockets); err != nil {
		h.cfg.Log.Error("a VCM's clients wait in vain", "uuid", v.uuid, "err", err)
	}
}

// address reserves the chosen address, or else a free one that can be had.
func (h *Host) address(u admit.Unit, chosen network.Place) (address string, sockets []network.Socket, err error) {
	if chosen.Address != "" {
		sockets, err = reserveChosen(chosen)
		return chosen.Address, sockets, err
	}
	a, err := h.cfg.Network.Allocate(u.Addresses(), func(a netip.Addr) (err error) {
		sockets, err = network.Reserve(network.Place{Address: a.String(), ConductorPort: chosen.ConductorPort})
		return err
	})
	return a.String(), sockets, err
}

// reserveChosen reserves a place that somebody asked for, for a VCM that has the
// sockets have.
func reserveChosen(to network.Place, have ...network.Socket) ([]network.Socket, error) {
	sockets, err := network.Reserve(to, have...)
	if err != nil {
		return nil, errkind.Errorf(errkind.Refused, "address %s cannot be used on this host: %w", to.Address, err)
	}
	return sockets, nil
}

// canMove fails if v could not have its ports at to.
func canMove(v *vcm, to network.Place) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	sockets, err := reserveChosen(to, v.sockets...)
	network.CloseAll(sockets, v.sockets...)
	return err
}
