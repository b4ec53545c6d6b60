package offline_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"iter"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge/neutral"
)

// held is a source of what it holds.
type held struct {
	overview    neutral.Overview
	items       []*neutral.Item
	discussions []*neutral.Discussion
	files       []*neutral.File
	bytes       map[string][]byte // by SHA-256
}

func (h *held) Overview(context.Context) (*neutral.Overview, error) { return &h.overview, nil }

func (h *held) Items(ctx context.Context) iter.Seq2[*neutral.Item, error] { return each(ctx, h.items) }

func (h *held) Discussions(ctx context.Context) iter.Seq2[*neutral.Discussion, error] {
	return each(ctx, h.discussions)
}

func (h *held) Files(ctx context.Context) iter.Seq2[*neutral.File, error] { return each(ctx, h.files) }

func (h *held) Open(_ context.Context, f *neutral.File) (io.ReadSeekCloser, error) {
	content, ok := h.bytes[f.SHA256]
	if !ok {
		return nil, fault.New("open "+f.Name, fault.ErrNotFound, "", "")
	}
	return nopCloser{bytes.NewReader(content)}, nil
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// each yields all, or the error of a context that has ended.
func each[T any](ctx context.Context, all []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range all {
			if !yield(v, ctx.Err()) || ctx.Err() != nil {
				return
			}
		}
	}
}

// file puts a file into the source.
func (h *held) file(url, name, mediaType, content string) *neutral.File {
	sum := sha256.Sum256([]byte(content))
	f := &neutral.File{URL: url, Name: name, Type: mediaType, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
	if h.bytes == nil {
		h.bytes = map[string][]byte{}
	}
	h.bytes[f.SHA256] = []byte(content)
	h.files = append(h.files, f)
	return f
}

func day(n int) time.Time { return time.Date(2024, 3, n, 12, 30, 0, 0, time.UTC) }

func by(id, login string, d int) neutral.Origin {
	return neutral.Origin{
		Forge: "github.com", ID: id, URL: "https://github.com/acme/api/issues/1#" + id, Author: neutral.User{Login: login}, Created: day(d), Updated: day(d),
	}
}

// small is a repository with one of everything.
func small() *held {
	h := &held{}
	h.file("https://github.com/user-attachments/assets/u1", "u1", "image/png", "\x89PNG")
	h.file("https://github.com/user-attachments/files/1/trace.html", "trace.html", "text/html", "<script>alert(1)</script>")
	asset := h.file("https://api.github.com/assets/1", "../../api_1.0.tar.gz", "application/gzip", "bytes")
	h.files = append(h.files, &neutral.File{URL: "https://github.com/user-attachments/assets/u2", Name: "u2", Reason: "too large"})
	h.overview = neutral.Overview{
		Settings:   neutral.Settings{Description: "An API", Topics: []string{"go", "http"}, DefaultBranch: "main"},
		Labels:     []*neutral.Label{{Name: "bug", Color: "ff0000", Description: "It breaks"}, {Name: "odd\"><script>", Color: "red;x"}},
		Milestones: []*neutral.Milestone{{Number: 1, Title: "v1", Due: day(9)}},
		Releases: []*neutral.Release{{
			Origin: by("r1", "ada", 8), Tag: "v1", Name: "First", Body: "Notes on #1", Published: day(8),
			Assets: []*neutral.Asset{{File: *asset, Release: "v1"}, {File: neutral.File{URL: "https://x/2", Name: "gone.zip", Reason: "404"}, Release: "v1"}},
		}},
	}
	h.overview.Projects = []*neutral.Project{{
		Title: "Plan <1>", Description: "what comes", Readme: "see #1", Owner: neutral.User{Login: "acme"}, Created: day(1), Views: []string{"Board"},
		URL: "https://github.com/orgs/acme/projects/4",
		Fields: []neutral.ProjectField{
			{Name: "Title", Type: "title"},
			{Name: "Status", Type: "single_select", Options: []string{"Todo", "Done"}},
			{Name: "Points", Type: "number"},
			{Name: "Nothing", Type: "text"},
		},
		Items: []*neutral.ProjectItem{
			{To: "acme/api#1", Title: "It breaks", Created: day(1), Values: []neutral.ProjectValue{
				{Field: "Title", Value: "It breaks"}, {Field: "Status", Value: "Done"}, {Field: "Points", Value: "2.5"},
			}},
			{To: "acme/web#1", Title: "Elsewhere", Archived: true, Values: []neutral.ProjectValue{{Field: "Points", Value: "<b>"}}},
			{Title: "Think", Body: "of **zebras**, #2", Draft: true, Values: []neutral.ProjectValue{{Field: "Status", Value: "Todo"}}},
			{},
		},
	}}
	h.items = []*neutral.Item{
		{
			Origin: by("i1", "ada", 1), Number: 1, Title: "It breaks", Labels: []string{"bug"}, Milestone: "v1", Closed: true, ClosedAt: day(4), Reason: "completed",
			ClosedBy: neutral.User{Login: "bob"}, Assignees: []neutral.User{{Login: "bob", Name: "Bob"}}, Reactions: []neutral.Reaction{{Content: "+1", User: neutral.User{Login: "eve"}}},
			Body:     "See #2 and #99, ![shot](https://github.com/user-attachments/assets/u1) and [trace](https://github.com/user-attachments/files/1/trace.html)",
			Comments: []*neutral.Comment{{Origin: by("c1", "carl", 3), Item: 1, Body: "A **deadlock**, I think", Reactions: []neutral.Reaction{{Content: "heart", User: neutral.User{Login: "ada"}}}}},
			Events:   []*neutral.Event{{Kind: "closed", Actor: neutral.User{Login: "bob"}, Created: day(4), Text: "closed this"}},
		},
		{
			Origin: by("i2", "bob", 2), Number: 2, Title: "Fix it", Body: "Fixes https://github.com/acme/api/issues/1",
			Pull: &neutral.Pull{Base: "main", Head: "fix", HeadOID: "abc", Merged: true, MergedAt: day(5), Reviews: []*neutral.Review{{
				Origin: by("v1", "ada", 4), Item: 2, State: "changes_requested", Body: "Nearly", Comments: []*neutral.Comment{{
					Origin: by("vc1", "ada", 4), Item: 2, Body: "Why?", Code: &neutral.Code{Path: "a.go", Line: 7, Hunk: "@@ -1 +1 @@\n+x := <-c"},
					Replies: []*neutral.Comment{{Origin: by("vc2", "bob", 5), Item: 2, Body: "So."}},
				}},
			}}},
		},
	}
	h.discussions = []*neutral.Discussion{{
		Item: neutral.Item{Origin: by("d3", "eve", 6), Number: 3, Title: "How?", Body: "Anybody?", Comments: []*neutral.Comment{{
			Origin: by("dc1", "ada", 7), Item: 3, Body: "Like this", Answer: true,
		}}}, Category: "Q&A", Answered: true, Votes: 2,
	}}
	return h
}
