package database

import (
	"context"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Source is one or more servers, each of which becomes a part of one point.
type Source struct {
	subject point.Subject
	servers []Server
	runner  Runner
}

// NewSource makes the source of servers that are reached by one runner. An empty name of the subject is that of the first server.
func NewSource(subject string, r Runner, servers ...Server) (*Source, error) {
	if len(servers) == 0 {
		return nil, fault.New("database", fault.ErrInvalid, "no server is named", "")
	}
	taken := map[string]bool{}
	for _, s := range servers {
		if _, err := engineOf(s); err != nil {
			return nil, err
		}
		if taken[s.PartName()] {
			return nil, fault.New("database", fault.ErrInvalid, "two servers are called "+s.name(), "give them names")
		}
		taken[s.PartName()] = true
	}
	if subject == "" {
		subject = servers[0].name()
	}
	return &Source{point.Subject{Kind: point.SubjectDatabase, Name: subject}, servers, r}, nil
}

// Subject names the servers.
func (s *Source) Subject() point.Subject { return s.subject }

// Capture dumps the servers. All dumps stand before the first is taken. What a server does wrong ends as a failed part; an error
// means that the run cannot go on.
func (s *Source) Capture(ctx context.Context, to point.Sink) error {
	begun := make([]func() error, len(s.servers)) // what is left to do for each
	var open []*Dump
	defer func() {
		for _, d := range open {
			d.Close() //nolint:errcheck // its own error was told where it was taken
		}
	}()
	for i, server := range s.servers {
		w, err := to.Part(ctx, server.PartName(), point.KindDatabase)
		if err != nil {
			return err
		}
		d, err := Begin(ctx, server, s.runner)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			begun[i] = func() error { return w.Fail(ctx, err) }
		default:
			open = append(open, d)
			begun[i] = func() error { return d.Capture(ctx, w) }
		}
	}
	for _, finish := range begun {
		if err := finish(); err != nil {
			return err
		}
	}
	return nil
}
