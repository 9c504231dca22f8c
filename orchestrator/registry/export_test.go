package registry

import "context"

// Renew does at once what the owner does every few seconds.
func Renew(o *Ownership) error { return o.renew(context.Background()) }

// Doubt makes the owner unsure whether its last attempt to claim happened.
func Doubt(o *Ownership) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unsure = true
}
