package prismtoken

import (
	"context"
	"net"
)

// Server serves the TokenApi.
type Server struct{ cfg Config }

// NewServer returns a server. It does nothing until Serve.
func NewServer(cfg Config) (*Server, error) { return &Server{cfg}, nil }

// Serve answers connections of l until ctx ends, then lets calls in progress
// finish within Limits.Drain. It returns after every connection has ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error { return nil }

// Stats returns the counters since the start.
func (s *Server) Stats() Stats { return Stats{} }
