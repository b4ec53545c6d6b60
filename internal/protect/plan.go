package protect

import (
	"context"
	"time"

	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/policy"
)

// Plan is what one run of a policy does: every source into a point of its own, each repository to every destination, and then
// expiry.
type Plan struct {
	Policy       string
	Sources      []PlannedSource
	Store        Store // nil where only copies are made
	Location     string
	Retention    policy.Retention
	Zone         *time.Location
	Destinations []Destination
	Parallel     int     // repositories delivered at once; 0 for four
	Shared       *Shared // with other processes; nil for alone
	Clock        Clock
	Observe      point.Observer
	// Tell is told of what becomes known while the run goes on: a repository that failed, a source that begins; one remark at a
	// time. May be nil.
	Tell func(Remark)
}

// Remark is one line of a run's log.
type Remark struct {
	Level      string // "debug", "info", "warning" or "error"
	Text       string
	Hints      []string // what to do
	Source     string   // subject
	Repository string   // "" for the source as a whole
}

// PlannedSource is one source of a policy.
type PlannedSource struct {
	Source
	Type string // "github", "git": as reports name it
	// Repositories lists what the source has, each one a source of its own. It is asked where there is no store, or a destination
	// wants to know where a repository comes from. Those it could list come with the error.
	Repositories func(ctx context.Context) ([]Repository, error)
	// Stats tells what the source cost, and what it has to say; asked after its capture.
	Stats func() SourceStats
}

// SourceStats is what a source says of itself after a run.
type SourceStats struct {
	Listed    int
	Requests  int64
	Remaining *int
	Warnings  []string
	Missing   []string // repositories that are asked for by name, and are not there
}

// Repository is one repository on its way to a destination.
type Repository struct {
	Source             // of its parts alone
	Part        string // name of its git part
	Host, Owner string
	Name        string
	// Held is the point that has it and its tree, where there is one.
	Held *Held
	// Origin is what the one who listed it knows of it beside; destinations that pull from the forge need it.
	Origin any
}

// Held is a point in a store, opened.
type Held struct {
	Record *point.Record
	Tree   point.Reader
}

// Destination takes copies of repositories: an export or a mirror.
type Destination struct {
	Type  string // "local", "s3", "gitea": as reports name it
	Place string // path or URL, without secrets
	// FromForge is set where the destination needs a repository as its forge lists it, not as a point has it.
	FromForge bool
	Deliver   func(ctx context.Context, r Repository) (Delivery, error)
}

// Delivery is what a destination did with a repository.
type Delivery struct {
	Unchanged bool
	Notes     []string
	Receipt   *point.Receipt // where the destination keeps a record; nil else
}

// Copies is the Deliver of a place of plain copies.
func Copies(to Drafter, policyName string) func(ctx context.Context, r Repository) (Delivery, error) {
	return func(ctx context.Context, r Repository) (Delivery, error) {
		receipt, err := Backup(ctx, to, r.Source, policyName)
		if receipt == nil {
			return Delivery{}, err
		}
		d := Delivery{Receipt: receipt, Notes: receipt.Warnings, Unchanged: true}
		for _, p := range receipt.Point.Parts {
			d.Unchanged = d.Unchanged && (p.Unchanged || p.State != point.Stored || p.NewBytes == 0)
			d.Notes = append(d.Notes, p.Notes...)
		}
		return d, err
	}
}
