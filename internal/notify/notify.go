// Package notify tells people and their monitoring how runs went: metrics, heartbeats, messages and log files. It works from
// point.Run alone. What comes from forges is hostile text here, and every address that it is told to is a secret.
package notify

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Channel takes messages: a push service, a chat, a mailbox.
type Channel interface {
	// Send delivers m. Its error names the host, and holds no secret.
	Send(ctx context.Context, m Message) error
}

// Notifier tells of the runs of one policy.
type Notifier struct {
	Client     *Client // for heartbeats
	Heartbeats []Heartbeat
	Channels   []Channel
	Always     bool // messages also of runs that were good; else of those that failed or raised an alarm
}

// How long telling may take in all. A run does not begin before its start was told, and who stops a process does not wait long.
const (
	startLimit = 15 * time.Second
	endLimit   = time.Minute
	stopLimit  = 10 * time.Second
)

// Started tells that a run begins. The error is a warning: it says what could not be told, and changes nothing for the run.
func (n *Notifier) Started(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	var all []func() error
	for _, h := range n.Heartbeats {
		all = append(all, func() error { return n.beat(ctx, h.Start) })
	}
	return together(all)
}

// Ended tells how a run went, also where ctx has ended: a run that was interrupted failed. The error is a warning: it says what
// could not be told, and changes nothing for the run.
func (n *Notifier) Ended(ctx context.Context, run point.Run) error {
	limit := endLimit
	if ctx.Err() != nil {
		limit = stopLimit
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	var all []func() error
	for _, h := range n.Heartbeats {
		if run.Kind == "" { // they watch whether backups are made
			all = append(all, func() error { return n.beat(ctx, h.after(run)) })
		}
	}
	if n.Always || OutcomeOf(run) != Good {
		m := MessageOf(run)
		for _, c := range n.Channels {
			all = append(all, func() error { return c.Send(ctx, m) })
		}
	}
	return together(all)
}

func (n *Notifier) beat(ctx context.Context, url fault.Secret) error {
	if url == "" {
		return nil
	}
	return n.Client.beat(ctx, url)
}

// together does all at once and joins their errors.
func together(all []func() error) error {
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, do := range all {
		wait.Go(func() { errs[i] = do() })
	}
	wait.Wait()
	return errors.Join(errs...)
}
