// Package prismtoken serves the TokenApi, the Thrift interface of the point of
// sale, over TLS.
//
// # Wire
//
// A connection carries TLS 1.2 or 1.3, in it frames of a 4-byte length and one
// message of the strict binary protocol. One goroutine serves a connection and
// answers one message at a time; each answer is one write, hence one TLS record.
// A message that cannot be understood is answered with an application exception
// under its own sequence number and the connection lives on, because the frame
// tells where the next message begins. Only a frame of impossible length ends it.
//
// # Limits
//
// Every step has a deadline: the handshake, the rest of a frame once it has
// begun, idleness, the write. Memory is bounded by the number of connections and
// the frame limit. At the connection limit the connection that has been idle for
// longest makes room, so that silent connections cannot keep anybody out.
package prismtoken

import (
	"context"
	"crypto/tls"
	"log/slog"

	"time"

	"github.com/tesserae-hsm/tesserae/hsm/tsm"
	"github.com/tesserae-hsm/tesserae/internal/clock"
	"github.com/tesserae-hsm/tesserae/vcm/accounts"
	"github.com/tesserae-hsm/tesserae/vcm/pos"
	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/dashboard"
)

// Licences loads transaction licences into the security module.
type Licences interface {
	LoadLicence(ctx context.Context, text string) (tsm.Licence, error)
}

// Config is what a server needs. Zero limits take their defaults.
type Config struct {
	Accounts    *accounts.Accounts
	POS         *pos.Service
	Dashboard   *dashboard.Dashboard
	Module      Licences
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Clock       clock.Clock
	Log         *slog.Logger
	Limits      Limits
}

// Limits bound what clients can take.
type Limits struct {
	Connections int           // open at a time; default the preference's
	FrameSize   int           // default 1 MiB
	Handshake   time.Duration // default 10 s
	Frame       time.Duration // from the first byte of a frame to its last; default 20 s
	Idle        time.Duration // default 10 min
	Write       time.Duration // default 20 s
	Drain       time.Duration // for calls in progress at the end; default 5 s
}

// Stats are a server's counters.
type Stats struct {
	Requests    int64
	Tokens      int64
	Connections int64
}
