package gitea

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
)

var _ forge.FileGetter = (*Provider)(nil)

// fileAddress is the end of an address that these forges give a file: of an attachment, or a release's asset.
var fileAddress = regexp.MustCompile(`/(attachments/[0-9a-fA-F-]{36}|[^/]+/[^/]+/releases/download/[^/]+/[^/]+|[^/]+/[^/]+/attachments/[0-9a-fA-F-]{36})$`)

// FileURLs implements forge.FileGetter. The forge lists the files of issues, comments and releases with them; those of reviews stand in
// their texts only.
func (p *Provider) FileURLs(r archive.Record) []archive.File {
	var d struct {
		Body   string          `json:"body"`
		Assets []assetDocument `json:"assets"`
	}
	if r.Collection == archive.FilesCollection || json.Unmarshal(r.Raw, &d) != nil {
		return nil
	}
	var found []archive.File
	named := map[string]bool{}
	for _, a := range d.Assets {
		if at := p.fileAt(a.URL); at != "" && !a.elsewhere() && !named[at] {
			named[at] = true
			// one that was replaced has the address of the old one, and another ID
			found = append(found, archive.File{URL: a.URL, Name: a.Name, Size: a.Size, Digest: "id:" + strconv.FormatInt(a.ID, 10)})
		}
	}
	for _, link := range forge.Links(d.Body) {
		at := p.fileAt(link)
		if !strings.HasPrefix(link, "/") && !strings.HasPrefix(link, p.web.String()+"/") || !strings.Contains(at, "/attachments/") || named[at] {
			continue
		}
		named[at] = true
		found = append(found, archive.File{URL: at})
	}
	return found
}

// fileAt is where a file is fetched: at the address of the forge that the user gave, whatever host an answer names. "" for what is no
// address of a file.
func (p *Provider) fileAt(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	end := fileAddress.FindString(u.EscapedPath())
	if end == "" {
		return ""
	}
	return p.web.String() + end
}

// GetFile implements forge.FileGetter.
func (p *Provider) GetFile(ctx context.Context, _ forge.Repository, f archive.File, limit int64) (io.ReadCloser, error) {
	at := p.fileAt(f.URL)
	if at == "" {
		return nil, fault.New("get file", fault.ErrNotFound, "it is at no address of the forge's files", "")
	}
	return p.files.Get(ctx, at, nil, limit)
}
