package tsm

import "context"

type actorKey struct{}

// By returns a context in which the module's operations are audited as the
// actor's. Token requests name theirs themselves.
func By(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

func actorOf(ctx context.Context) string {
	actor, _ := ctx.Value(actorKey{}).(string)
	return actor
}
