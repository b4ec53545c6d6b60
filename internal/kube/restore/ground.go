package restore

import (
	"context"
	"fmt"
)

// Ground creates the namespaces that the plan brings back, for claims are exchanged before Apply and need theirs. Apply finds them made.
func (p *Plan) Ground(ctx context.Context) error { return p.early(ctx, "namespace") }

// Classes creates the storage classes that the plan brings back, for volumes are made before Apply. Apply finds them made.
func (p *Plan) Classes(ctx context.Context) error { return p.early(ctx, "storageclass."+groupStorage) }

// early creates the objects of one kind before the others.
func (p *Plan) early(ctx context.Context, kind string) error {
	a := &applier{Plan: p, client: p.options.Cluster.Client, waiting: map[*Item][]*Item{}}
	for _, i := range p.Items {
		if i.Action != Create || !isKind(i.object, kind) {
			continue
		}
		if err := a.one(ctx, i); err != nil {
			return fmt.Errorf("create %s: %w", i, err)
		}
	}
	return nil
}
