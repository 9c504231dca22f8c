package fakeunit

import (
	"context"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/api/gen/prismadmin"
	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

func (s *tokenService) KmcApprovals(context.Context) (*prismadmin.Approvals, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.approvals
	return &a, nil
}

func (s *tokenService) KmcPinRoot(ctx context.Context, pem string) (*prismadmin.Approvals, error) {
	if pem != "" && !strings.Contains(pem, "PUBLIC KEY") {
		return nil, errkind.Errorf(errkind.Invalid, "this is not an approval root")
	}
	s.mu.Lock()
	s.approvals = prismadmin.Approvals{Keys: []string{}}
	if pem != "" {
		s.approvals.RootPem, s.approvals.RootSha256 = pem, strings.Repeat("ab", 32)
	}
	s.mu.Unlock()
	return s.KmcApprovals(ctx)
}

func (s *tokenService) KmcUploadApprovals(ctx context.Context, text string) (*prismadmin.Approvals, error) {
	s.mu.Lock()
	if s.approvals.RootPem == "" {
		s.mu.Unlock()
		return nil, errkind.Errorf(errkind.Mode, "no approval root is pinned")
	}
	s.approvals.Issuer, s.approvals.Date, s.approvals.Keys = "TEST-ROOT", 1_800_000_000, strings.Fields(text)
	s.mu.Unlock()
	return s.KmcApprovals(ctx)
}

func (s *tokenService) SmLoadTables(_ context.Context, name, tables string) (string, error) {
	if !strings.HasPrefix(tables, "{") {
		return "", errkind.Errorf(errkind.Invalid, "STA tables %s: no JSON", name)
	}
	return strings.Repeat("cd", 32), nil
}

func (s *tokenService) ConductorShow(context.Context) (*prismadmin.Conductor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &prismadmin.Conductor{Address: "127.0.0.1:5100", Sockets: 3, MaxSockets: 64, TraceLevel: "Default", Started: 1_800_000_000, Restarts: s.restarts}, nil
}

func (s *tokenService) ConductorRestart(ctx context.Context) (*prismadmin.Conductor, error) {
	s.mu.Lock()
	s.restarts++
	s.mu.Unlock()
	return s.ConductorShow(ctx)
}
