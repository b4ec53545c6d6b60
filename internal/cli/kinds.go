package cli

import (
	"context"
	"path"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// restorers bring parts back to the place that the options name.
func (a *app) restorers(o restoreOptions, observe point.Observer) (map[string]protect.Restorer, error) {
	if isURL(o.to) {
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
	}, nil
}

// differs compare parts whose files say less than what they mean.
func (a *app) differs() map[string]protect.Differ {
	return map[string]protect.Differ{point.KindGit: diffRefs, point.KindDir: diffTree}
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
