package gitlab

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

// fileHosts are where files of the server are. What gitlab.com has in its store, it leads to.
func fileHosts(site *url.URL) forge.FileHosts {
	h := forge.FileHosts{Own: []string{site.String()}}
	if site.Host == "gitlab.com" {
		h.Stores = []string{"storage.googleapis.com"}
	}
	return h
}

// FileURLs implements forge.FileGetter: uploads that texts refer to, and what releases link to on the same server. Addresses stay as
// they stand in the text, mostly relative to the project: "/uploads/SECRET/shot.png".
func (p *Provider) FileURLs(r archive.Record) []archive.File {
	var all []archive.File
	seen := map[string]bool{}
	add := func(address, name string) {
		if !seen[address] {
			seen[address] = true
			all = append(all, archive.File{URL: address, Name: name})
		}
	}
	for _, address := range forge.LinksIn(r.Raw, "body", "description") {
		if u, ok := p.uploadAt(address); ok {
			add(address, u.name)
		}
	}
	if r.Collection == "releases" {
		var in release
		if json.Unmarshal(r.Raw, &in) == nil {
			for _, l := range in.Assets.Links {
				if _, isUpload := p.uploadAt(l.URL); isUpload || p.isOwn(l.URL) {
					add(l.URL, l.Name)
				}
			}
		}
	}
	return all
}

// isOwn reports whether an address is one of this server.
func (p *Provider) isOwn(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.User == nil && u.Scheme == p.site.Scheme && strings.EqualFold(u.Host, p.site.Host) &&
		strings.HasPrefix(u.Path, p.site.Path+"/")
}

// upload is a file that somebody attached to a text.
type upload struct {
	project      string // its ID or path; "" for the one that the text is of
	secret, name string
}

// The forms that addresses of uploads have: below the project's path, below "/-/project/ID", or alone.
var uploadPath = regexp.MustCompile(`^(?:/-/project/([0-9]+)|/([^-][^?#]*?))?(?:/-)?/uploads/([0-9a-f]{32})/([^/?#]+)$`)

// uploadAt reads the address of an upload on this server.
func (p *Provider) uploadAt(address string) (upload, bool) {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || u.Host != "" && !strings.EqualFold(u.Host, p.site.Host) {
		return upload{}, false
	}
	m := uploadPath.FindStringSubmatch(strings.TrimPrefix(u.Path, p.site.Path))
	if m == nil || m[4] == "." || m[4] == ".." || strings.HasPrefix(m[2], "groups/") {
		return upload{}, false
	}
	return upload{m[1] + m[2], m[3], m[4]}, true
}

// GetFile implements forge.FileGetter. Uploads of private projects are to be had by the API only, which gives them since 17.4.
func (p *Provider) GetFile(ctx context.Context, r forge.Repository, f archive.File, limit int64) (io.ReadCloser, error) {
	u, ok := p.uploadAt(f.URL)
	if !ok {
		return p.files.Get(ctx, f.URL, nil, limit)
	}
	project, fullName := r.ID, r.FullName()
	if u.project != "" {
		project, fullName = u.project, u.project
	}
	tail := path.Join("uploads", u.secret) + "/" + url.PathEscape(u.name)
	body, err := p.files.Get(ctx, p.site.String()+"/api/v4/projects/"+escaped(project)+"/"+tail, nil, limit)
	if notFound(err) {
		if older, alas := p.files.Get(ctx, p.site.String()+"/"+fullName+"/"+tail, nil, limit); alas == nil {
			return older, nil
		}
	}
	return body, err
}
