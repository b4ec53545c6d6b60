package offline

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// places are where the addresses of a repository lead in the export. It is the links of pages that lie a directory below the repository's.
type places struct {
	name  string            // "github.com/acme/api"
	files map[string]string // by address, below the repository's directory; "" for one whose bytes the point has not
	seen  map[string]bool   // what of the files is written
	// What items there are, by sort.
	items map[string]numbers
	below string // "../" in a page a directory below that of the repository, "" in others
}

func newPlaces(name string) *places {
	return &places{
		name: name, files: map[string]string{}, seen: map[string]bool{},
		items: map[string]numbers{sortIssue: {}, sortPull: {}, sortDiscussion: {}}, below: "../",
	}
}

// from returns the places as pages in the repository's own directory lead to them.
func (p *places) from(below string) *places {
	other := *p
	other.below = below
	return &other
}

// inert are the endings of files that no browser takes for a page or a script. Files of other endings get one more, ".bin": opened
// from the disk, a page could read others.
var inert = set("png jpg jpeg gif webp bmp ico avif mp4 m4v mov webm mp3 m4a ogg wav flac pdf txt log md csv json yaml yml toml diff patch " +
	"zip gz tgz bz2 xz zst tar 7z rar jar war whl gem deb rpm apk dmg pkg msi exe appimage iso img sig asc sha256 sha512 pem " +
	"doc docx xls xlsx ppt pptx odt ods odp bin")

// pictures are the endings of files that pages show.
var pictures = set("png jpg jpeg gif webp bmp ico avif")

var (
	unusual = regexp.MustCompile(`[^0-9A-Za-z._-]+`)
	digest  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// maxName is how long a file's name may be, in bytes.
const maxName = 80

// endings are those of media types whose files have names without one, as GitHub's attachments.
var endings = map[string]string{
	"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp", "video/mp4": ".mp4", "video/quicktime": ".mov",
	"video/webm": ".webm", "application/pdf": ".pdf", "application/zip": ".zip", "text/plain": ".txt",
}

// fileName is a name for a file of somebody's that is harmless in a path, an address, and opened by a browser.
func fileName(f *neutral.File) string {
	name := f.Name
	name = strings.TrimLeft(unusual.ReplaceAllString(name, "_"), ".-")
	name = name[max(0, len(name)-maxName):]
	name = strings.TrimLeft(name, ".-")
	if inert[strings.ToLower(strings.TrimPrefix(path.Ext(name), "."))] {
		return name
	}
	mediaType, _, _ := strings.Cut(f.Type, ";")
	return name + cmp.Or(endings[strings.TrimSpace(mediaType)], ".bin")
}

// isPicture reports whether pages show a file.
func isPicture(name string) bool {
	return pictures[strings.ToLower(strings.TrimPrefix(path.Ext(name), "."))]
}

// filesOf yields the files of a source, each with whether it is the one before by a shorter address.
func filesOf(ctx context.Context, s neutral.Source, each func(f *neutral.File, again bool) error) error {
	before := &neutral.File{}
	for f, err := range s.Files(ctx) {
		if err != nil {
			return err
		}
		again := strings.HasSuffix(before.URL, f.URL) && f.SHA256 == before.SHA256
		if err := each(f, again); err != nil {
			return err
		}
		before = f
	}
	return nil
}

// bytesOf opens a file. The reader is nil for one whose bytes the point has not.
func bytesOf(ctx context.Context, s neutral.Source, f *neutral.File) (io.ReadCloser, error) {
	if !digest.MatchString(f.SHA256) {
		return nil, nil
	}
	from, err := s.Open(ctx, f)
	if errors.Is(err, fault.ErrNotFound) {
		return nil, nil
	}
	return from, err
}

// take writes the bytes of a file below dir, once, and notes where its address leads. It tells whether they are there.
func (p *places) take(ctx context.Context, s neutral.Source, f *neutral.File, dir string) (bool, error) {
	p.files[f.URL] = ""
	if len(f.SHA256) < 16 {
		return false, nil
	}
	at := path.Join("files", f.SHA256[:16], fileName(f))
	if p.seen[at] {
		p.files[f.URL] = at
		return true, nil
	}
	from, err := bytesOf(ctx, s, f)
	if err != nil || from == nil {
		return false, err
	}
	defer from.Close()
	if err := copyFile(ctx, filepath.Join(dir, filepath.FromSlash(at)), from); err != nil {
		return false, err
	}
	p.seen[at], p.files[f.URL] = true, at
	return true, nil
}

func copyFile(ctx context.Context, name string, from io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	to, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(copyTo(ctx, to, from), to.Close())
}

// file returns where a file is, "" for one that is not there.
func (p *places) file(address string) string {
	if at := p.files[address]; at != "" {
		return p.below + at
	}
	return ""
}

// image implements links.
func (p *places) image(address string) string {
	if at := p.file(address); isPicture(at) {
		return at
	}
	return ""
}

// item implements links. GitHub and Gitea number everything in one row, GitLab issues and merge requests apart.
func (p *places) item(mark byte, number int64) string {
	sorts := []string{sortIssue, sortPull, sortDiscussion}
	if mark == '!' {
		sorts = sorts[1:2]
	}
	for _, sort := range sorts {
		if p.items[sort].has(number) {
			return p.below + itemPlace(sort, number)
		}
	}
	return ""
}

func itemPlace(sort string, number int64) string {
	return sort + "s/" + strconv.FormatInt(number, 10) + ".html"
}

var sortsByPath = map[string]string{
	"issues": sortIssue, "pull": sortPull, "pulls": sortPull, "merge_requests": sortPull, "discussions": sortDiscussion,
}

// to implements links.
func (p *places) to(address string) (href string, local bool) {
	if at := p.file(address); at != "" {
		return at, true
	}
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil {
		return "", false
	}
	switch {
	case u.Scheme == "mailto" && u.Opaque != "":
		return u.String(), false
	case u.Opaque != "", address == "", u.Scheme == "" && u.Host == "" && u.Path == "": // a place in this page, which has none
		return "", false
	case u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https":
		return "", false
	}
	host, repository, _ := strings.Cut(p.name, "/")
	u = (&url.URL{Scheme: "https", Host: host, Path: "/" + repository + "/"}).ResolveReference(u)
	if u.Host == "" {
		return "", false
	}
	if at := p.page(u, host, repository); at != "" {
		return at, true
	}
	return u.String(), false
}

// page returns the page of an item that an address of the forge is of.
func (p *places) page(u *url.URL, host, repository string) string {
	rest, ok := strings.CutPrefix(u.Path, "/"+repository+"/")
	if !ok || !strings.EqualFold(u.Host, host) {
		return ""
	}
	words := strings.Split(strings.TrimPrefix(rest, "-/"), "/")
	if len(words) != 2 {
		return ""
	}
	number, err := strconv.ParseInt(words[1], 10, 64)
	sort := sortsByPath[words[0]]
	if err != nil || sort == "" {
		return ""
	}
	if p.items[sort].has(number) {
		return p.below + itemPlace(sort, number)
	}
	if sort == sortIssue { // GitHub shows a pull request there, too
		return p.item('!', number)
	}
	return ""
}
