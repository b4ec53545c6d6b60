package onedev

import (
	"context"
	"io"
	"net/url"
	"regexp"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

var _ forge.FileGetter = (*Provider)(nil)

// attachmentPath is where the server has what was put into a text.
var attachmentPath = regexp.MustCompile(`^/~downloads/projects/[0-9]+/attachments/[0-9a-fA-F-]{1,64}/[^/]+$`)

// FileURLs implements forge.FileGetter. Texts name attachments without the server.
func (p *Provider) FileURLs(r archive.Record) []archive.File {
	if r.Collection == archive.FilesCollection {
		return nil
	}
	var found []archive.File
	for _, link := range forge.LinksIn(r.Raw, "description", "content") {
		if !strings.HasPrefix(link, "/") && !strings.HasPrefix(link, p.web.String()+"/") {
			continue
		}
		if at := p.fileAt(link); at != "" {
			found = append(found, archive.File{URL: at})
		}
	}
	return found
}

// fileAt is where a file is fetched; "" for what is no address of one.
func (p *Provider) fileAt(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	path := strings.TrimPrefix(u.EscapedPath(), strings.TrimSuffix(p.web.EscapedPath(), "/"))
	if !attachmentPath.MatchString(path) {
		return ""
	}
	return p.web.String() + path
}

// GetFile implements forge.FileGetter.
func (p *Provider) GetFile(ctx context.Context, _ forge.Repository, f archive.File, limit int64) (io.ReadCloser, error) {
	at := p.fileAt(f.URL)
	if at == "" {
		return nil, fault.New("get file", fault.ErrNotFound, "it is at no address of the server's files", "")
	}
	return p.files.Get(ctx, at, nil, limit)
}
