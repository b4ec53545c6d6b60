package bitbucket

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

// stores are where Bitbucket's downloads lead to.
func stores() []string { return []string{"bbuseruploads.s3.amazonaws.com", "bytebucket.org"} }

// Paths of files: of what stands on the Downloads page, by the API, and of what was put into a text.
var (
	downloadPath = regexp.MustCompile(`^/2\.0/repositories/[^/]+/[^/]+/downloads/[^/]+$`)
	imagePath    = regexp.MustCompile(`^/repo/[0-9A-Za-z]+/images/[^/]+$`)
)

// FileURLs implements forge.FileGetter: what is on the Downloads page, and images in texts.
func (p *Provider) FileURLs(r archive.Record) []archive.File {
	var d struct {
		Name    string `json:"name"`
		Size    int64  `json:"size"`
		Created string `json:"created_on"`
		Links   struct {
			Self link `json:"self"`
		} `json:"links"`
	}
	if r.Collection == archive.FilesCollection {
		return nil
	}
	if r.Collection == "downloads" {
		if json.Unmarshal(r.Raw, &d) != nil || p.fileAt(d.Links.Self.Href) == "" {
			return nil
		}
		digest := "made " + d.Created + " of " + strconv.FormatInt(d.Size, 10) // one that takes another's place has its address
		return []archive.File{{URL: d.Links.Self.Href, Name: d.Name, Size: d.Size, Digest: digest}}
	}
	var found []archive.File
	for _, link := range forge.LinksIn(r.Raw, "raw", "description") {
		if strings.HasPrefix(link, p.site.String()+"/") && p.fileAt(link) != "" {
			found = append(found, archive.File{URL: link})
		}
	}
	return found
}

// fileAt is where a file is fetched: at the addresses that the user gave, whatever host an answer names. "" for what is no address of a
// file.
func (p *Provider) fileAt(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	switch path := u.EscapedPath(); {
	case downloadPath.MatchString(path):
		return strings.TrimSuffix(p.api, "/2.0") + path
	case imagePath.MatchString(path):
		return p.site.String() + path
	}
	return ""
}

// GetFile implements forge.FileGetter.
func (p *Provider) GetFile(ctx context.Context, _ forge.Repository, f archive.File, limit int64) (io.ReadCloser, error) {
	at := p.fileAt(f.URL)
	if at == "" {
		return nil, fault.New("get file", fault.ErrNotFound, "it is at no address of Bitbucket's files", "")
	}
	return p.files.Get(ctx, at, nil, limit)
}
