package hosting

// Count returns how many VCMs there are, also those that are shown to nobody.
func Count(h *Host) int { return len(h.all()) }
