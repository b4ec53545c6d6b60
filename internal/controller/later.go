package controller

import (
	"context"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// later is a manager that leaves it to others to run what is added.
type later struct {
	manager.Manager
	added []manager.Runnable
}

// Add implements manager.Manager.
func (l *later) Add(r manager.Runnable) error {
	l.added = append(l.added, r)
	return nil
}

// begin runs what watch adds to a manager that runs already, until ctx ends. The manager itself cannot: told to stop while something is
// added, it waits for itself.
func begin(ctx context.Context, m manager.Manager, watch func(manager.Manager) error) error {
	l := &later{Manager: m}
	if err := watch(l); err != nil {
		return err
	}
	running, ctx := errgroup.WithContext(ctx)
	for _, r := range l.added {
		running.Go(func() error { return r.Start(ctx) })
	}
	return running.Wait()
}
