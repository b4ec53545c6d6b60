package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/bitbucket"
	"github.com/backstay/backstay/internal/forge/gitea"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/gitlab"
	"github.com/backstay/backstay/internal/forge/onedev"
	"github.com/backstay/backstay/internal/forge/sourcehut"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// metadataRestore says whether issues and the like are restored to a forge, and how.
type metadataRestore struct {
	wanted, keepNumbers bool
}

func (o *metadataRestore) bind(flags *pflag.FlagSet) {
	flags.BoolVar(&o.wanted, "metadata", false, "with --forge: issues, pull requests, reviews, releases and settings, too")
	flags.BoolVar(&o.keepNumbers, "keep-numbers", false, "with --metadata: fill gaps between the numbers of issues, so that all keep theirs")
}

// decoders read archives, by their dialects.
func decoders() map[string]forge.Decoder {
	return map[string]forge.Decoder{
		kindGitea: gitea.Decode, kindGitHub: github.Decode, kindGitLab: gitlab.Decode,
		kindBitbucket: bitbucket.Decode, kindOneDev: onedev.Decode, kindSourcehut: sourcehut.Decode,
	}
}

// sourceOf reads what a part holds.
func sourceOf(ctx context.Context, from point.Reader) (o forge.MetadataRestoreOptions, h archive.Header, _ error) {
	r, err := archive.Open(ctx, from)
	if err != nil {
		return o, h, err
	}
	h = r.Header()
	decode := decoders()[h.Dialect]
	if decode == nil {
		return o, h, fault.New("read archive", fault.ErrUnsupported, fmt.Sprintf("metadata of %q cannot be restored yet", h.Dialect),
			"restore the part to a directory: it is plain JSON")
	}
	source, err := decode(r)
	return forge.MetadataRestoreOptions{From: source, Host: h.Host, Repository: h.Repository}, h, err
}

// repositoryPart is the name of the git part that metadata goes with: forge/HOST/OWNER/NAME/metadata is of git/HOST/OWNER/NAME.git.
func repositoryPart(metadata string) (string, error) {
	inner, isForge := strings.CutPrefix(metadata, "forge/")
	inner, isMetadata := strings.CutSuffix(inner, "/metadata")
	if !isForge || !isMetadata {
		return "", fault.New("restore "+metadata, fault.ErrUnsupported, "it is not of a repository", "")
	}
	return "git/" + inner + ".git", nil
}

// metadataTarget is where metadata goes at a forge.
func metadataTarget(p provider) (forge.MetadataRestorer, error) {
	to, ok := p.(forge.MetadataRestorer)
	if !ok {
		return nil, fault.New("restore to "+p.Host(), fault.ErrUnsupported, "this forge takes no metadata yet", "leave --metadata out; it stays in the point")
	}
	return to, nil
}

// metadataRestorer restores metadata to the repositories that mirror makes; without --metadata it says that it stays in the point.
func (a *app) metadataRestorer(p provider, mirror *forge.Mirror, o restoreOptions, observe point.Observer) (protect.Restorer, error) {
	if !o.metadata.wanted {
		return func(context.Context, point.Reader, point.Part, string) ([]string, error) {
			return []string{"stays in the point: ask for it with --metadata"}, protect.ErrStays
		}, nil
	}
	to, err := metadataTarget(p)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, from point.Reader, part point.Part, _ string) ([]string, error) {
		options, _, err := sourceOf(ctx, from)
		if err != nil {
			return nil, err
		}
		name, err := repositoryPart(part.Name)
		if err != nil {
			return nil, err
		}
		if options.To, err = mirror.Repository(ctx, name); err != nil {
			return nil, err
		}
		options.Target, options.KeepNumbers, options.Part, options.Observe = to.Target(), o.metadata.keepNumbers, part.Name, observe
		if options.Plan, err = forge.PlanMetadata(ctx, options.From, options.Target.Keeps()); err != nil {
			return nil, err
		}
		a.tellPlan(part.Name, options.Plan)
		done, err := forge.RestoreMetadata(ctx, options)
		if done == nil {
			return nil, err
		}
		return append(done.Notes, fmt.Sprintf("%d written, %d there already", done.Written, done.There)), err
	}, nil
}

// tellPlan says what of metadata does not stay as it was.
func (a *app) tellPlan(part string, plan *forge.MetadataPlan) {
	a.say("%s:", part)
	for _, line := range plan.Lines {
		a.say("  %s", line)
	}
}

// planDocument is what `restore --metadata --plan --json` prints.
type planDocument struct {
	Version int           `json:"version"`
	Point   string        `json:"point"`
	Parts   []plannedPart `json:"parts"`
}

type plannedPart struct {
	Part string              `json:"part"`
	Plan *forge.MetadataPlan `json:"plan"`
}

// planMetadata tells what would become of the metadata of a point at a forge, or in what one reads. It sends nothing there.
func (a *app) planMetadata(ctx context.Context, ref string, o restoreOptions) error {
	observe, wipe := a.observer()
	defer wipe()
	keeps := gitea.DumpKeeps()
	switch o.dump.format {
	case formatGitLab:
		keeps = gitlab.ImportKeeps()
	case "":
		to, err := a.metadataTargetAt(ctx, o, observe)
		if err != nil {
			return err
		}
		keeps = to.Target().Keeps()
	}
	return a.withStore(ctx, toRead, func(s store) error {
		found, err := protect.Resolve(ctx, s, ref, o.asOf.Time)
		if err != nil {
			return err
		}
		doc := planDocument{Version: documentVersion, Point: found.ID}
		plan := func(ctx context.Context, from point.Reader, part point.Part, _ string) ([]string, error) {
			options, _, err := sourceOf(ctx, from)
			if err != nil {
				return nil, err
			}
			plan, err := forge.PlanMetadata(ctx, options.From, keeps)
			if err == nil {
				doc.Parts = append(doc.Parts, plannedPart{part.Name, plan})
			}
			return nil, err
		}
		pass := func(context.Context, point.Reader, point.Part, string) ([]string, error) { return nil, nil }
		names := []string{o.part}
		if o.dump.format != "" && o.part != "" {
			record, _, err := s.Open(ctx, found.ID)
			if err != nil {
				return err
			}
			names = plannedParts(record.Point.Parts, o.part)
		}
		for _, name := range names {
			_, failed := protect.Restore(ctx, s, found.ID, protect.Restoration{
				Part: name, To: o.forge, Finds: true, Restorers: map[string]protect.Restorer{
					point.KindGit: pass, point.KindListing: pass, point.KindIssues: pass, point.KindMetadata: plan,
				},
			})
			err = errors.Join(err, failed)
		}
		wipe()
		if err == nil && len(doc.Parts) == 0 {
			err = fault.New("restore", fault.ErrNotFound, "the point has no metadata", "back up with metadata: true")
		}
		return errors.Join(err, a.tellPlans(doc))
	})
}

// metadataTargetAt is where metadata goes by the options.
func (a *app) metadataTargetAt(ctx context.Context, o restoreOptions, observe point.Observer) (forge.MetadataRestorer, error) {
	if o.forge == "" {
		return nil, fault.New("restore", fault.ErrInvalid, "--metadata goes with --forge", "")
	}
	access, err := a.forgeAccess(o.to, o.gitOptions)
	if err != nil {
		return nil, err
	}
	e, err := a.newBuilder(observe).entry(ctx, o.forge, access)
	if err != nil {
		return nil, err
	}
	p, err := e.provider()
	if err != nil {
		return nil, err
	}
	return metadataTarget(p)
}

func (a *app) tellPlans(doc planDocument) error {
	if a.global.json {
		return a.document(doc)
	}
	for _, p := range doc.Parts {
		a.tellPlan(p.Part, p.Plan)
	}
	return nil
}
