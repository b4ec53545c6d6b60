package gitea

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/archive"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// Upload implements forge.MetadataTarget. Attachments belong to an issue or a comment.
func (t *target) Upload(context.Context, forge.Repository, archive.File, io.Reader) (string, error) {
	return "", fault.New("", fault.ErrUnsupported, "attachments belong to an issue or a comment", "")
}

// placeOf is the path of what was written.
func placeOf(w neutral.Written) string {
	sort, id, _ := strings.Cut(w.ID, " ")
	switch sort {
	case "issue":
		return "issues/" + id
	case "comment":
		return "issues/comments/" + id
	case "release":
		return "releases/" + id
	}
	return ""
}

// Attach implements forge.MetadataAttacher. A file of the same name and size that is there is the one, from a run that was cut short.
func (t *target) Attach(ctx context.Context, r forge.Repository, to neutral.Written, f archive.File, content io.Reader) (string, error) {
	at := placeOf(to)
	if at == "" || strings.HasPrefix(at, "releases") { // whose files are its assets
		return "", fault.New("", fault.ErrUnsupported, "there is no place for it", "")
	}
	var there []assetDocument
	if err := t.p.do(ctx, http.MethodGet, below(r, at+"/assets"), nil, nil, &there); err != nil {
		return "", err
	}
	for _, a := range there {
		if a.Name == nameOf(f) && a.Size == f.Size {
			return a.URL, nil
		}
	}
	d, err := t.send(ctx, r, at+"/assets", f, content)
	return d.URL, err
}

// Rewrite implements forge.MetadataAttacher.
func (t *target) Rewrite(ctx context.Context, r forge.Repository, w neutral.Written, text string) error {
	at := placeOf(w)
	if at == "" {
		return fault.New("", fault.ErrUnsupported, "its text cannot be changed", "")
	}
	return t.p.do(ctx, http.MethodPatch, below(r, at), nil, map[string]any{"body": text}, nil)
}

func nameOf(f archive.File) string {
	if f.Name != "" {
		return f.Name
	}
	name := f.URL[strings.LastIndexByte(f.URL, '/')+1:]
	if name == "" {
		return "file"
	}
	return name
}

func (t *target) send(ctx context.Context, r forge.Repository, at string, f archive.File, content io.Reader) (assetDocument, error) {
	var d assetDocument
	err := t.p.client.Send(ctx, http.MethodPost, below(r, at), nil,
		forge.Upload{Name: nameOf(f), Type: f.Type, Size: f.Size, Body: content, Field: "attachment"}, &d)
	return d, scoped(err)
}
