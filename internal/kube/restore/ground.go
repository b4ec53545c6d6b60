package restore

import (
	"context"
	"fmt"
)

// Ground creates the namespaces that the plan brings back, for claims are exchanged before Apply and need theirs. Apply finds them made.
func (p *Plan) Ground(ctx context.Context) error {
	a := &applier{Plan: p, client: p.options.Cluster.Client, waiting: map[*Item][]*Item{}}
	for _, i := range p.Items {
		if i.Action != Create || !isKind(i.object, "namespace") {
			continue
		}
		if err := a.one(ctx, i); err != nil {
			return fmt.Errorf("create namespace %s: %w", i.Name, err)
		}
	}
	return nil
}
