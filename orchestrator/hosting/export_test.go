package hosting

import "github.com/tesserae-hsm/tesserae/orchestrator/network"

// PID is the process of a VCM that serves, 0 if there is none.
func PID(h *Host, uuid string) int {
	v, err := h.find(uuid)
	if err != nil {
		return 0
	}
	p, ok := v.process()
	if !ok {
		return 0
	}
	return p.PID()
}

// Kill ends the host as the death of its process and of who keeps VCMs does: their
// processes end and no record changes.
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
