package registry

import "context"

// Renew does at once what the owner does every few seconds.
func Renew(o *Ownership) error { return o.renew(context.Background()) }
