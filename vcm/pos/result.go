package pos

import "context"

func (s *Service) fetch(ctx context.Context, caller Caller, messageID string) ([]Token, error) {
	return nil, nil
}
