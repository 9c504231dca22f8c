package hosting

import "github.com/tesserae-hsm/tesserae/orchestrator/network"

// Kill ends the host as the death of its process does: its VCMs' processes end
// and no record changes.
func Kill(h *Host) {
	h.cancel(nil)
	h.owned.Wait()
	for _, v := range h.all() {
		v.mu.Lock()
		network.CloseAll(v.sockets)
		v.place, v.sockets = network.Place{}, nil
		v.mu.Unlock()
	}
}
