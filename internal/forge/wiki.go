package forge

import (
	"cmp"
	"context"
	"errors"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/point"
)

// noWiki is the reason of skipping a wiki that the forge only said there might be.
const noWiki = "it has no wiki"

// wiki captures a repository's wiki, where it has one. Many forges only say that there might be one. No listing tells
// when a wiki was edited, so one that is there is asked at every run; one that was not there is looked for when its repository is asked.
func (c *capture) wiki(ctx context.Context, r Repository, fresh bool) error {
	name := c.a.wikiName(r)
	before, inLast := c.last[cmp.Or(c.byID[c.a.partID(r, ofWiki)], name)]
	switch {
	case !c.a.o.Selection.Wikis && inLast && known(before):
		c.skip(name, point.KindGit, "wikis are left out")
		return nil
	case !c.a.o.Selection.Wikis:
		return nil
	case r.WikiHTTPURL == "" && r.WikiSSHURL == "":
		if inLast && known(before) {
			return c.vanish(ctx, before.Name, point.KindGit, "the repository has no wiki any more")
		}
		return nil
	case fresh && inLast && before.State == point.Skipped && before.Reason == noWiki:
		c.skip(name, point.KindGit, noWiki)
		return nil
	}
	if !inLast || before.State != point.Stored {
		there, err := c.hasWiki(ctx, r)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && !there && inLast && known(before):
			return c.vanish(ctx, before.Name, point.KindGit, "the repository has no wiki any more")
		case err == nil && !there:
			c.skip(name, point.KindGit, noWiki)
			return nil
		}
	}
	return c.git(ctx, r, name, ofWiki, r.WikiHTTPURL, r.WikiSSHURL)
}

// WikiFinder says whether somebody wrote a wiki, for forges that do not tell git so: Gitea answers with an internal error.
type WikiFinder interface {
	HasWiki(ctx context.Context, r Repository) (bool, error)
}

func (c *capture) hasWiki(ctx context.Context, r Repository) (bool, error) {
	if finder, ok := c.a.o.Provider.(WikiFinder); ok {
		return finder.HasWiki(ctx, r)
	}
	return c.exists(ctx, r, r.WikiHTTPURL, r.WikiSSHURL)
}

// exists asks whether a git repository is there.
func (c *capture) exists(ctx context.Context, r Repository, httpURL, sshURL string) (bool, error) {
	address, o, err := c.reach(ctx, r, httpURL, sshURL)
	if err != nil {
		return false, err
	}
	u, err := git.ParseURL(address)
	if err != nil {
		return false, err
	}
	remote, err := git.Dial(ctx, u, o.Options)
	if err != nil {
		return false, err
	}
	defer remote.Close() //nolint:errcheck // nothing was written
	defer func() { c.a.requests.Add(remote.Requests()) }()
	switch _, err = remote.ListRefs(ctx); {
	case errors.Is(err, fault.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}
