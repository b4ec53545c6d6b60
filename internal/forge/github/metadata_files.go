package github

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

var _ forge.FileGetter = (*Provider)(nil)

// fileHosts says where an instance keeps assets and attachments.
func fileHosts(web *url.URL) forge.FileHosts {
	h := forge.FileHosts{Own: []string{web.Scheme + "://" + web.Host}, Stores: []string{"media." + web.Host}}
	if inCloud(web.Host) {
		h.Stores = []string{"*.githubusercontent.com"}
	}
	return h
}

// asset is a file of a release.
type asset struct {
	ID        number `json:"id"`
	URL       words  `json:"url"`
	Page      words  `json:"browser_download_url"`
	Name      words  `json:"name"`
	Label     words  `json:"label"`
	Type      words  `json:"content_type"`
	Size      number `json:"size"`
	Digest    words  `json:"digest"` // "sha256:…"; null of old ones
	State     words  `json:"state"`
	Downloads number `json:"download_count"`
	Created   moment `json:"created_at"`
}

// FileURLs implements forge.FileGetter: of an asset its address in the API, which serves private ones too, and of bodies the addresses
// of what people attached.
func (p *Provider) FileURLs(r archive.Record) (files []archive.File) {
	if r.Collection == "assets" {
		var o asset
		if decode(r, &o) != nil || !p.files.Allows(string(o.URL)) || o.State != "uploaded" {
			return nil
		}
		return []archive.File{{URL: string(o.URL), Name: string(o.Name), Type: string(o.Type), Size: int64(max(o.Size, 0)), Digest: string(o.Digest)}}
	}
	for _, link := range forge.LinksIn(r.Raw, "body", "description") {
		if u, err := url.Parse(link); err == nil && p.attached(u) {
			files = append(files, archive.File{URL: link, Name: u.Path[strings.LastIndex(u.Path, "/")+1:]})
		}
	}
	return files
}

// attachment is where pages have what people attached: since 2024 below /user-attachments, before below the repository.
var attachment = regexp.MustCompile(`^(/user-attachments/(assets|files)/.|/[\w.-]+/[\w.-]+/(assets|files)/\d+/.|/(storage/)?user/\d+/files/.)`)

// attached reports whether an address is of something that was attached.
func (p *Provider) attached(u *url.URL) bool {
	switch {
	case u.User != nil || !p.files.Allows(u.String()):
		return false
	case strings.EqualFold(u.Host, p.web.Host):
		return attachment.MatchString(u.Path)
	case inCloud(p.web.Host):
		return strings.EqualFold(u.Host, "user-images.githubusercontent.com") || strings.EqualFold(u.Host, "private-user-images.githubusercontent.com")
	}
	return strings.EqualFold(u.Host, "media."+p.web.Host)
}

// GetFile implements forge.FileGetter.
func (p *Provider) GetFile(ctx context.Context, _ forge.Repository, f archive.File, limit int64) (io.ReadCloser, error) {
	body, err := p.files.Get(ctx, f.URL, http.Header{"Accept": {"application/octet-stream"}}, limit)
	return body, fault.Wrap(fmt.Sprintf("download %.80q", f.Name), nil, err, "")
}
