package database

import (
	"context"

	"github.com/backstay/backstay/internal/fault"
)

// Ping asks a server whether it lets the user in.
func Ping(ctx context.Context, s Server, r Runner) error {
	e, err := engineOf(s)
	if err != nil {
		return err
	}
	c := &client{Server: s, runner: r}
	return fault.Wrap("reach "+s.name(), nil, c.explained(e.ping(ctx, c)), "")
}
