package database

import (
	"context"

	"github.com/backstay/backstay/internal/point"
)

// Ask asks a question of a server into which a dump was loaded. An error says nothing of what was loaded.
func Ask(ctx context.Context, from point.Reader, s Server, r Runner, q Question) (point.Check, error) {
	m, err := ReadManifest(ctx, from)
	if err != nil {
		return point.Check{}, err
	}
	c := &client{Server: s, runner: r}
	return c.pose(ctx, q, m)
}
