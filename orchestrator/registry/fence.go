package registry

// Fence grows from one claim on the unit to the next.
func (o *Ownership) Fence() int64 {
	rev, _ := o.held()
	return rev
}
