package export_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/fault"
)

// halfway is a reader that fails after some bytes.
type halfway struct {
	left int
	err  error
}

func (h *halfway) Read(p []byte) (int, error) {
	if h.left == 0 {
		return 0, h.err
	}
	n := min(len(p), h.left)
	h.left -= n
	return n, nil
}

// TestPlaces holds every place to the promises of Place.
func TestPlaces(t *testing.T) {
	t.Parallel()
	places := map[string]func(t *testing.T) export.Place{
		"local":  func(t *testing.T) export.Place { l, _ := local(t); return l },
		"webdav": func(t *testing.T) export.Place { d, _, _ := davServer(t); return d },
		"azure": func(t *testing.T) export.Place {
			server := httptest.NewServer(&blobServer{blobs: map[string][]byte{}})
			t.Cleanup(server.Close)
			place, err := export.NewAzure(export.AzureOptions{URL: server.URL + "?sig=secret", Container: "copies", Scratch: t.TempDir()})
			must(t, err)
			return place
		},
		"s3": func(t *testing.T) export.Place {
			endpoint, _ := s3Server(t, "copies")
			place, err := export.NewS3(export.S3Options{
				Endpoint: endpoint, Bucket: "copies", Region: "us-east-1", AccessKey: s3Key, SecretKey: s3Secret, Insecure: true, Scratch: t.TempDir(),
			})
			must(t, err)
			return place
		},
	}
	for name, open := range places {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			holdTo(t, open(t))
		})
	}
}

func holdTo(t *testing.T, p export.Place) {
	t.Helper()
	ctx := t.Context()
	if entries, err := p.List(ctx, "not/there"); err != nil || len(entries) > 0 {
		t.Errorf("a directory that is not there: %v, %v", entries, err)
	}
	if _, err := p.Open(ctx, "not/there"); !errors.Is(err, fault.ErrNotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := p.Remove(ctx, "not/there"); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}

	small, large := []byte("small\n"), bytes.Repeat([]byte("0123456789abcdef"), 200_000) // more than is held in memory
	for name, data := range map[string][]byte{"a/b/small": small, "a/large": large, "a/empty": nil, "a/b/odd name+%41ü": small} {
		n, err := p.Put(ctx, name, bytes.NewReader(data))
		if err != nil || n != int64(len(data)) {
			t.Fatalf("put %s: %d, %v", name, n, err)
		}
		if got := contentOf(t, p, name); !bytes.Equal(got, data) {
			t.Errorf("%s came back as %d bytes, want %d", name, len(got), len(data))
		}
	}
	listed, err := p.List(ctx, "a")
	must(t, err)
	var found []string
	for _, e := range listed {
		kind := "file"
		if e.Mode.IsDir() {
			kind = "dir"
		} else if e.Name == "large" && e.Size != int64(len(large)) {
			t.Errorf("%s has %d bytes", e.Name, e.Size)
		}
		found = append(found, kind+" "+e.Name)
	}
	slices.Sort(found)
	if want := []string{"dir b", "file empty", "file large"}; !slices.Equal(found, want) {
		t.Errorf("listed %v, want %v", found, want)
	}

	// A reader that fails leaves what was there, and nothing else.
	broken := errors.New("the source broke")
	for _, left := range []int{3, 3 << 20} {
		if _, err := p.Put(ctx, "a/b/small", &halfway{left, broken}); !errors.Is(err, broken) {
			t.Errorf("a reader's error came back as %v", err)
		}
	}
	if got := contentOf(t, p, "a/b/small"); !bytes.Equal(got, small) {
		t.Errorf("a failed put left %d bytes", len(got))
	}
	if listed, err := p.List(ctx, "a/b"); err != nil || len(listed) != 2 {
		t.Errorf("a failed put left %v, %v", listed, err)
	}

	if c, can := p.(interface {
		Copy(ctx context.Context, from, to string) error
	}); can {
		must(t, c.Copy(ctx, "a/large", "c/copy"))
		if got := contentOf(t, p, "c/copy"); !bytes.Equal(got, large) {
			t.Errorf("the copy has %d bytes", len(got))
		}
		if _, err := p.Put(ctx, "c/copy", strings.NewReader("new")); err != nil {
			t.Error(err)
		}
		if got := contentOf(t, p, "a/large"); !bytes.Equal(got, large) {
			t.Error("the original changed with its copy")
		}
	}

	must(t, p.Remove(ctx, "a"))
	if entries, err := p.List(ctx, "a"); err != nil || len(entries) > 0 {
		t.Errorf("after removal: %v, %v", entries, err)
	}

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := p.Put(ended, "late", strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("put after the end: %v", err)
	}
}

func contentOf(t *testing.T, p export.Place, name string) []byte {
	t.Helper()
	f, err := p.Open(t.Context(), name)
	if err != nil {
		t.Errorf("open %s: %v", name, err)
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Errorf("read %s: %v", name, err)
	}
	return data
}

func TestLostTipsAreAskedForWhereTheyCanBe(t *testing.T) {
	t.Parallel()
	place, dir := local(t)
	var asked [][]string
	e := exporter(t, export.Options{Place: place, Lost: func(ctx context.Context, gitDir string, before, after []string) ([]string, error) {
		asked = append(asked, before)
		if out, err := tryGit(t, gitDir, append([]string{"cat-file", "-t"}, after[0])...); err != nil {
			t.Errorf("the new objects are not there: %s", out)
		}
		return nil, ctx.Err()
	}})
	u := newUpstream(t, "example.com/acme/api")
	before := run(t, u.dir, "rev-parse", "HEAD")
	backUp(t, e, u)
	u.commit(t)
	backUp(t, e, u)
	if len(asked) != 1 || !slices.Equal(asked[0], []string{before}) {
		t.Errorf("asked for %v", asked)
	}
	if kept := run(t, dir+"/api.git", "for-each-ref", "refs/backstay"); kept != "" {
		t.Errorf("kept are %s", kept)
	}
}

func TestLayoutsThatCannotBe(t *testing.T) {
	t.Parallel()
	on, _ := local(t)
	dav, _, _ := davServer(t)
	tests := []struct {
		name   string
		place  export.Place
		layout export.Layout
		want   error
	}{
		{"form", on, export.Layout{Form: "tar"}, fault.ErrInvalid},
		{"files on a server", dav, export.Layout{Form: export.Worktree}, fault.ErrInvalid},
		{"nothing checks out", on, export.Layout{Form: export.Worktree}, fault.ErrUnsupported},
		{"keep and dated", on, export.Layout{Keep: 1, Dated: true}, fault.ErrInvalid},
		{"keep", on, export.Layout{Keep: -1}, fault.ErrInvalid},
	}
	for _, test := range tests {
		if _, err := export.New(export.Options{Place: test.place, Layout: test.layout, Clock: clock()}); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
