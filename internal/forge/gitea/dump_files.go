package gitea

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// DumpFilesTag names the release whose assets are the files that texts refer to: restore-repo makes no attachments, but assets, and
// those have addresses that are known before.
const DumpFilesTag = "backstay-attachments"

// attachments writes the files that texts refer to, as assets of a release, and notes their new addresses. Nil for none.
func (d *dumper) attachments(ctx context.Context, o *neutral.Overview) (*dumpRelease, error) {
	assets := map[string]bool{}
	for _, r := range o.Releases {
		for _, a := range r.Assets {
			assets[a.URL] = true
		}
	}
	release := &dumpRelease{
		Tag: DumpFilesTag, Name: "Attachments", Body: "Files that issues, pull requests and comments refer to.", Prerelease: true, Target: o.Settings.DefaultBranch,
	}
	names := map[string]bool{}
	owner, name, _ := strings.Cut(d.Repository, "/")
	below := strings.TrimSuffix(d.Site, "/") + "/" + cmp.Or(d.Owner, owner) + "/" + name + "/releases/download/" + DumpFilesTag + "/"
	for f, err := range d.Source.Files(ctx) {
		if err != nil {
			return nil, err
		}
		if assets[f.URL] {
			continue
		}
		name := attachmentName(f)
		if !names[name] {
			at := fmt.Sprintf("release_assets/attachments/%05d", len(names)+1)
			size, err := d.copyFile(ctx, f, at)
			if err != nil {
				return nil, err
			}
			if size < 0 {
				continue
			}
			names[name] = true
			release.Assets = append(release.Assets, dumpAsset{Name: name, Size: size, URL: at})
		}
		d.moved[f.URL] = below + name
	}
	if len(names) == 0 {
		return nil, nil
	}
	return release, d.tag(o.Settings.DefaultBranch)
}

var unusual = regexp.MustCompile(`[^0-9A-Za-z._-]+`)

// attachmentName tells files of the same name apart by their content.
func attachmentName(f *neutral.File) string {
	name := unusual.ReplaceAllString(f.Name, "_")
	return f.SHA256[:min(12, len(f.SHA256))] + "-" + name[max(0, len(name)-100):]
}

// tag makes the tag of the release of files, without which it would be a draft. It is on the default branch, or on any.
func (d *dumper) tag(branch string) error {
	oid := d.refs["refs/heads/"+branch]
	for _, ref := range sortedRefs(d.refs) {
		if strings.HasPrefix(ref, "refs/heads/") {
			oid = cmp.Or(oid, d.refs[ref])
		}
	}
	if !plainOID.MatchString(oid) {
		return nil // a repository without commits: who may write sees the draft
	}
	at := filepath.Join(d.Dir, DumpGit, "refs", "tags", DumpFilesTag)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, []byte(oid+"\n"), 0o644)
}

// moveFiles puts the new addresses of files into a text.
func (d *dumper) moveFiles(text string) string {
	var old []string
	for _, link := range forge.Links(text) {
		if d.moved[link] != "" {
			old = append(old, link)
		}
	}
	// A long address may have a short one in it.
	slices.SortFunc(old, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, link := range old {
		text = strings.ReplaceAll(text, link, d.moved[link])
	}
	return text
}
