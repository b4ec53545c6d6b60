package forge

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// errand is what another process is told of a repository that it is to capture.
type errand struct {
	Repository   Repository `json:"repository"`
	MetadataMark string     `json:"metadataMark,omitempty"`
	// Usurper is set where the repository has the name of one that is gone.
	Usurper bool `json:"usurper,omitempty"`
}

// Divide lists the repositories that changed since the last point, as far as the forge tells in its lists: those are what several processes
// can capture side by side. Their issues, where those are captured apart from metadata, are left to Compose.
func (a *Account) Divide(ctx context.Context, last point.Sink) ([]point.Piece, error) {
	l, err := a.list(ctx)
	if err != nil {
		return nil, err
	}
	c, err := a.newCapture(ctx, last)
	if err != nil {
		return nil, err
	}
	c.know(l)
	var pieces []point.Piece
	for _, j := range a.choose(l).taken {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e := errand{Repository: j.Repository}
		if j.unfit != nil || !c.changed(ctx, &e) {
			continue
		}
		spec, err := json.Marshal(e)
		if err != nil {
			return nil, fault.Wrap("divide "+a.path(j.Repository), nil, err, "")
		}
		pieces = append(pieces, point.Piece{Name: a.path(j.Repository), Size: j.Size, Spec: spec})
	}
	return pieces, nil
}

// changed reports whether there is anything to capture of a repository, and completes what another process needs for it.
func (c *capture) changed(ctx context.Context, e *errand) bool {
	r := e.Repository
	name := c.a.partName(r)
	e.Usurper = c.usurps(name, c.a.partID(r, ""))
	fresh := c.fresh(r) && c.byID[c.a.partID(r, "")] == name
	if _, reads := c.a.o.Provider.(MetadataReader); reads && c.a.o.Metadata != nil {
		e.MetadataMark = c.a.metadataMark(ctx, r)
		part := c.last[c.a.metadataName(r)]
		_, same := c.unmoved(&point.Prior{Part: part}, e.MetadataMark)
		return !fresh || !same
	}
	return !fresh
}

// Hand returns what captures one of the pieces.
func (a *Account) Hand(ctx context.Context, last point.Sink) (func(context.Context, point.Sink, point.Piece) error, error) {
	before, err := a.newCapture(ctx, last)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, to point.Sink, p point.Piece) error {
		var e errand
		if err := json.Unmarshal(p.Spec, &e); err != nil {
			return fault.Wrap("capture "+p.Name, fault.ErrCorrupt, err, "")
		}
		if e.MetadataMark != "" {
			a.tellMark(e.Repository, e.MetadataMark)
		}
		if e.Usurper {
			to = alarmedSink{to, a.partName(e.Repository), usurped}
		}
		c := &capture{a: a, to: to, last: before.last, byID: before.byID, named: map[string]bool{}}
		c.noteRenames([]Repository{e.Repository})
		return c.errand(ctx, e.Repository)
	}, nil
}

// errand captures a repository but for its issues.
func (c *capture) errand(ctx context.Context, r Repository) error {
	fresh := c.fresh(r) // before the part is ended
	if err := c.git(ctx, r, c.a.partName(r), "", r.HTTPURL, r.SSHURL); err != nil {
		return err
	}
	if err := c.wiki(ctx, r, fresh); err != nil {
		return err
	}
	return c.metadata(ctx, r)
}

// Compose is Capture, which takes over what Hand captured of repositories, by the names of their pieces.
func (a *Account) Compose(ctx context.Context, to point.Sink, captured map[string][]point.Part) error {
	return a.capture(ctx, to, captured)
}

// takeOver takes over what was captured of a repository, and reports whether it could: all of it must be there, as it was captured.
func (c *capture) takeOver(ctx context.Context, r Repository, parts []point.Part) (bool, error) {
	for _, p := range parts {
		there := c.last[p.Name]
		if p.State != point.Skipped && (p.State != point.Stored || there.State != point.Stored || there.Mark != p.Mark || there.Revision != p.Revision) {
			return false, nil // it failed there, and is tried once more
		}
	}
	if len(parts) == 0 {
		return false, nil
	}
	for _, p := range parts {
		if p.State == point.Skipped {
			c.skip(p.Name, p.Kind, p.Reason)
			continue
		}
		if err := c.takeOverPart(ctx, p); err != nil {
			return false, err
		}
	}
	return true, c.issues(ctx, r)
}

func (c *capture) takeOverPart(ctx context.Context, p point.Part) error {
	c.take(p.Name)
	w, err := c.to.Part(ctx, p.Name, p.Kind)
	if err != nil {
		return err
	}
	prior := w.Prior()
	if prior == nil || prior.Part.State != point.Stored || prior.Part.Mark != p.Mark || prior.Part.Revision != p.Revision {
		return w.Fail(ctx, errLost)
	}
	if err := w.Keep(ctx, "."); err != nil {
		return err
	}
	return w.Store(ctx, prior.Part)
}

var errLost = errors.New("what was captured of it is not in the vault any more") //nolint:gochecknoglobals // a constant, but for its type

// tellMark is told what the forge says of a repository's metadata, so that it need not be asked once more.
func (a *Account) tellMark(r Repository, mark string) {
	a.marking.Lock()
	defer a.marking.Unlock()
	if a.marks.told == nil {
		a.marks.told = map[string]string{}
	}
	a.marks.told[r.ID] = mark
}
