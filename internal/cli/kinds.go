package cli

import (
	"context"
	"path"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// restorers bring parts back to the place that the options name.
func (a *app) restorers(ctx context.Context, o restoreOptions, observe point.Observer) (map[string]protect.Restorer, error) {
	switch {
	case o.forge != "":
		return a.makers(ctx, o, observe)
	case o.owner != "" || o.visibility != "" || o.metadata.wanted:
		return nil, fault.New("restore", fault.ErrInvalid, "--owner, --visibility and --metadata go with --forge", "")
	case isDatabase(o.to):
		return a.databaseRestorers(o)
	case isURL(o.to):
		return a.pushers(o, observe)
	}
	if o.force || o.pullRequests {
		return nil, fault.New("restore", fault.ErrInvalid, "--force and --pull-requests are for a URL", "nothing in a directory is ever overwritten")
	}
	lay := git.RestoreBare
	if o.checkout {
		lay = git.RestoreClone
	}
	repository := func(ctx context.Context, from point.Reader, part point.Part, to string) ([]string, error) {
		return nil, lay(ctx, from, to, git.RestoreOptions{Refs: o.refs, Part: part.Name, Observe: observe})
	}
	tree := restoreTree
	if o.checkout || len(o.refs) > 0 {
		tree = func(context.Context, point.Reader, point.Part, string) ([]string, error) {
			return nil, fault.New("", fault.ErrInvalid, "--ref and --checkout are for repositories", "")
		}
	}
	return map[string]protect.Restorer{
		point.KindGit: repository, point.KindLFS: protect.RestoreFiles, point.KindDir: tree,
		point.KindListing: protect.RestoreFiles, point.KindIssues: protect.RestoreFiles, point.KindMetadata: protect.RestoreFiles,
		point.KindObjects: protect.RestoreFiles, point.KindVolume: tree, point.KindBlock: protect.RestoreFiles,
		point.KindDatabase: protect.RestoreFiles,
	}, nil
}

// makers are the restorers to a forge, where repositories are made first.
func (a *app) makers(ctx context.Context, o restoreOptions, observe point.Observer) (map[string]protect.Restorer, error) {
	if o.checkout || len(o.refs) > 0 || o.pullRequests {
		return nil, fault.New("restore", fault.ErrInvalid, "--checkout, --ref and --pull-requests do not go with --forge", "")
	}
	access, err := a.forgeAccess(o.to, o.gitOptions)
	if err != nil {
		return nil, err
	}
	b := a.newBuilder(observe)
	e, err := b.entry(ctx, o.forge, access)
	if err != nil {
		return nil, err
	}
	e.makes = true
	p, err := e.provider()
	if err != nil {
		return nil, err
	}
	to, err := b.mirrorTo(e, p, v1alpha1.Mirror{
		Owner: o.owner, KeepOwners: o.owner == "", CreateOwner: true, Visibility: o.visibility, Force: o.force, LFS: true,
	})
	if err != nil {
		return nil, err
	}
	leave := func(context.Context, point.Reader, point.Part, string) ([]string, error) {
		return []string{"stays in the point: restore it to a directory"}, protect.ErrStays
	}
	metadata, err := a.metadataRestorer(p, to, o, observe)
	if err != nil {
		return nil, err
	}
	return map[string]protect.Restorer{
		point.KindGit: func(ctx context.Context, from point.Reader, part point.Part, _ string) ([]string, error) {
			report, err := to.Push(ctx, from, part)
			if report == nil {
				return nil, err
			}
			return report.Notes, err
		},
		point.KindListing: leave, point.KindIssues: leave, point.KindMetadata: metadata,
	}, nil
}

// differs compare parts whose files say less than what they mean.
func (a *app) differs() map[string]protect.Differ {
	return map[string]protect.Differ{
		point.KindGit: diffRefs, point.KindDir: diffTree, point.KindVolume: diffTree, point.KindMetadata: diffMetadata,
	}
}

// compactors merge what parts are made of.
func compactors() map[string]protect.Compactor {
	return map[string]protect.Compactor{point.KindGit: {
		Due: func(ctx context.Context, from point.Reader) (bool, error) {
			files, err := from.List(ctx, "objects/pack")
			packs := 0
			for _, f := range files {
				if path.Ext(f.Name) == ".pack" {
					packs++
				}
			}
			return packs > git.DefaultCompactAbove, err
		},
		Compact: func(ctx context.Context, w point.PartWriter, prior *point.Prior) (int, error) {
			return git.Compact(ctx, w, prior, git.CompactOptions{})
		},
		Repack: func(ctx context.Context, w point.PartWriter, prior *point.Prior, kept []point.Reader) (int, error) {
			return git.Compact(ctx, w, prior, git.CompactOptions{Full: true, Kept: kept})
		},
	}}
}
