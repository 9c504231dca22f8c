package hosting

import (
	"net/netip"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/admit"
	"github.com/tesserae-hsm/tesserae/orchestrator/network"
)

// bind takes v's ports unless it has them. It keeps them from its creation to
// its deletion: whoever else is on this host, another unit's VCMs included, cannot
// have its address while it is stopped.
func (h *Host) bind(v *vcm) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	address := v.rec.Properties.IPAddress
	if v.address == address {
		return nil
	}
	sockets, err := network.Reserve(address)
	if err != nil {
		return err
	}
	h.letGo(v)
	v.address, v.sockets = address, sockets
	return nil
}

// letGo gives v's ports up, and its address as far as we made it the host's.
// v.mu is held.
func (h *Host) letGo(v *vcm) {
	if v.address == "" {
		return
	}
	network.CloseAll(v.sockets)
	h.release(v.address)
	v.address, v.sockets = "", nil
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
func (h *Host) address(u admit.Unit, chosen string) (address string, sockets []network.Socket, err error) {
	if chosen != "" {
		sockets, err = reserveChosen(chosen)
		return chosen, sockets, err
	}
	a, err := h.cfg.Network.Allocate(u.Addresses(), func(a netip.Addr) (err error) {
		sockets, err = network.Reserve(a.String())
		return err
	})
	return a.String(), sockets, err
}

// reserveChosen reserves an address that somebody asked for.
func reserveChosen(address string) ([]network.Socket, error) {
	sockets, err := network.Reserve(address)
	if err != nil {
		return nil, errkind.Errorf(errkind.Refused, "address %s cannot be used on this host: %w", address, err)
	}
	return sockets, nil
}
