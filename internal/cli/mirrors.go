package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
	"github.com/backstay/backstay/internal/vault"
)

// pusher makes a live copy of a part of a repository elsewhere. from is opened on the part.
type pusher func(ctx context.Context, r protect.Repository, from point.Reader, part point.Part) (protect.Delivery, error)

// mirror makes a destination of live copies.
func (b *builder) mirror(ctx context.Context, m v1alpha1.Mirror) (protect.Destination, error) {
	if m.Radicle != nil {
		return b.radicle(m), nil
	}
	kind, access := mirrorOf(m)
	if access == nil {
		return protect.Destination{}, fault.New("", fault.ErrInvalid, "it names no forge", "")
	}
	e, err := b.entry(ctx, kind, *access)
	if err != nil {
		return protect.Destination{}, err
	}
	e.makes = true
	p, err := e.provider()
	if err != nil {
		return protect.Destination{}, err
	}
	as := map[string]*forge.Mirror{}
	for _, visibility := range []string{v1alpha1.VisibilityPrivate, v1alpha1.VisibilityPublic} {
		if m.Visibility != v1alpha1.VisibilitySource {
			visibility = m.Visibility
		}
		if as[visibility] != nil {
			continue
		}
		like := m
		like.Visibility = visibility
		if as[visibility], err = b.mirrorTo(e, p, like); err != nil {
			return protect.Destination{}, err
		}
	}
	to := func(r protect.Repository) *forge.Mirror { return as[visibilityOf(m, r)] }
	d := protect.Destination{
		Type: kind, Place: cmp.Or(place(access.URL), p.Host()), FromForge: m.Pull || m.Visibility == v1alpha1.VisibilitySource,
	}
	if m.Pull {
		d.Deliver = pulls(to)
		return d, nil
	}
	d.Deliver = b.pushes(func(ctx context.Context, r protect.Repository, from point.Reader, part point.Part) (protect.Delivery, error) {
		report, err := to(r).Push(ctx, from, part)
		return delivered(report), err
	})
	return d, nil
}

// delivered is what a mirror did, as runs report it.
func delivered(report *forge.MirrorReport) protect.Delivery {
	if report == nil {
		return protect.Delivery{}
	}
	return protect.Delivery{Unchanged: report.Unchanged, Notes: report.Notes}
}

// visibilityOf is that of a copy. A repository of which nothing is known is private.
func visibilityOf(m v1alpha1.Mirror, r protect.Repository) string {
	if m.Visibility != v1alpha1.VisibilitySource {
		return m.Visibility
	}
	if from, ok := r.Origin.(origin); ok && !from.repository.Private {
		return v1alpha1.VisibilityPublic
	}
	return v1alpha1.VisibilityPrivate
}

// radicle makes copies on this machine's Radicle node.
func (b *builder) radicle(m v1alpha1.Mirror) protect.Destination {
	node := git.NewRadicle(git.RadicleOptions{Force: m.Force, Prune: m.Radicle.Prune, Observe: b.observe})
	push := func(ctx context.Context, r protect.Repository, from point.Reader, part point.Part) (protect.Delivery, error) {
		report, err := node.Push(ctx, from, git.RadicleRepository{
			Source: "https://" + strings.TrimSuffix(strings.TrimPrefix(part.Name, "git/"), ".git"), Name: r.Name,
			Private: visibilityOf(m, r) != v1alpha1.VisibilityPublic, Part: part.Name,
		})
		if report == nil {
			return protect.Delivery{}, err
		}
		return protect.Delivery{Unchanged: report.Unchanged, Notes: report.Notes}, err
	}
	return protect.Destination{
		Type: "radicle", Place: "the node of this machine", FromForge: m.Visibility == v1alpha1.VisibilitySource, Deliver: b.pushes(push),
	}
}

func (b *builder) mirrorTo(e entry, p provider, m v1alpha1.Mirror) (*forge.Mirror, error) {
	o := forge.MirrorOptions{
		To: p, Owner: m.Owner, Structured: m.KeepOwners, Nested: e.kind == kindGitLab || e.kind == kindOneDev, MakeOwners: m.CreateOwner,
		Visibility: m.Visibility, OwnerVisibility: m.OwnerVisibility, LFS: m.LFS, Force: m.Force, SSH: e.ssh != nil, Git: e.git(), Observe: b.observe,
	}
	if m.Interval != "" {
		var err error
		if o.Interval, err = time.ParseDuration(m.Interval); err != nil {
			return nil, fault.Wrap("interval", fault.ErrInvalid, err, "")
		}
	}
	return forge.NewMirror(o)
}

// pulls lets the target pull by itself.
func pulls(to func(protect.Repository) *forge.Mirror) func(context.Context, protect.Repository) (protect.Delivery, error) {
	return func(ctx context.Context, r protect.Repository) (protect.Delivery, error) {
		from, ok := r.Origin.(origin)
		if !ok {
			return protect.Delivery{}, fault.New("", fault.ErrUnsupported, "only repositories of a forge can be pulled", "mirror by pushing")
		}
		username, password, err := from.provider.GitCredentials(ctx)
		if err != nil {
			return protect.Delivery{}, err
		}
		report, err := to(r).Pull(ctx, from.provider.Host(), from.repository, username, password)
		return delivered(report), err
	}
}

// pushes pushes what a point has of a repository. Where there is no point, a vault that lasts for this one repository takes its place.
func (b *builder) pushes(push pusher) func(context.Context, protect.Repository) (protect.Delivery, error) {
	return func(ctx context.Context, r protect.Repository) (delivery protect.Delivery, err error) {
		if r.Held != nil {
			return pushHeld(ctx, push, r)
		}
		err = b.staged(ctx, r.Source, func(held *protect.Held) (err error) {
			r.Held = held
			delivery, err = pushHeld(ctx, push, r)
			return err
		})
		return delivery, err
	}
}

// pushHeld pushes a repository, and its wiki where the point has one.
func pushHeld(ctx context.Context, push pusher, r protect.Repository) (all protect.Delivery, _ error) {
	all.Unchanged = true
	var failed error
	wiki := strings.TrimSuffix(r.Part, ".git") + ".wiki.git"
	for _, part := range r.Held.Record.Point.Parts {
		if (part.Name != r.Part && part.Name != wiki) || (part.State != point.Stored && part.State != point.Carried) {
			continue
		}
		d, err := push(ctx, r, protect.Within(r.Held.Tree, part.Name), part)
		failed = errors.Join(failed, err)
		all.Unchanged = all.Unchanged && d.Unchanged
		all.Notes = append(all.Notes, d.Notes...)
	}
	return all, failed
}

// staged captures a source into a vault of its own, which is gone afterwards.
func (b *builder) staged(ctx context.Context, src protect.Source, use func(*protect.Held) error) (err error) {
	dir, err := os.MkdirTemp("", "backstay-staged-")
	if err != nil {
		return fault.Wrap("make a scratch vault", fault.ErrUnavailable, err, "")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	location, err := vault.ParseLocation(filepath.Join(dir, "vault"))
	if err != nil {
		return err
	}
	password := fault.Secret(rand.Text())
	if err := vault.Create(ctx, location, password, b.app.vaultOptions()); err != nil {
		return err
	}
	v, err := vault.Open(ctx, location, password, b.app.vaultOptions())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close(context.WithoutCancel(ctx))) }()
	receipt, err := protect.Backup(ctx, v, src, "")
	if receipt == nil {
		return err
	}
	record, tree, openErr := v.Open(ctx, receipt.Point.ID)
	if openErr != nil {
		return errors.Join(err, openErr)
	}
	return errors.Join(err, use(&protect.Held{Record: record, Tree: tree}))
}
