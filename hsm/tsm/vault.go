package tsm

import (
	"context"
	"time"
)

// Tx is a transaction's view of the module's own bucket. Get returns (nil, nil)
// when the key is absent; slices are valid only during the transaction.
type Tx interface {
	Get(key []byte) ([]byte, error)
	Put(key, value []byte) error
	Delete(key []byte) error
	Range(prefix []byte, fn func(key, value []byte) error) error
}

// Vault is the module's protected memory. Update returns once the transaction
// is durable; its function may run more than once.
type Vault interface {
	View(ctx context.Context, fn func(Tx) error) error
	Update(ctx context.Context, fn func(Tx) error) error
}

// Event is an entry for the audit log. The module reports every key operation
// and every token, inside the transaction of the operation itself, so that a
// caller needs no entry of its own for them.
type Event struct {
	Time    time.Time
	Kind    string // for example "key.load", "token.credit"
	Actor   string // who asked, as the caller named it
	Subject string // a KMC, "SGC/KRN" of a key, or a meter's PAN
	Detail  map[string]string
	// Pairs is more of Detail; a token's is all here, for a map costs more. It is
	// the module's again when Audit has returned.
	Pairs [][2]string
}

// Entry is an audit entry read back for SM?QL.
type Entry struct {
	Time time.Time
	Text string
}
