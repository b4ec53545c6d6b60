package export_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/protect"
)

// blobServer is one container of Azure Blob Storage, as far as copies need it. It asks for the signature "sig=secret".
type blobServer struct {
	mu    sync.Mutex
	blobs map[string][]byte
	fails int // answers 503 so many times
}

func (s *blobServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refuse := func(status int, code string) {
		w.Header().Set("x-ms-error-code", code)
		w.WriteHeader(status)
	}
	name, inContainer := strings.CutPrefix(r.URL.Path, "/copies")
	name = strings.TrimPrefix(name, "/")
	q := r.URL.Query()
	data, there := s.blobs[name]
	switch {
	case s.fails > 0:
		s.fails--
		refuse(http.StatusServiceUnavailable, "ServerBusy")
	case q.Get("sig") != "secret":
		refuse(http.StatusForbidden, "AuthenticationFailed")
	case !inContainer:
		refuse(http.StatusNotFound, "ContainerNotFound")
	case q.Get("comp") == "list":
		s.list(w, q.Get("prefix"), q.Get("delimiter"))
	case r.Method == http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.blobs[name] = body
		w.WriteHeader(http.StatusCreated)
	case !there:
		refuse(http.StatusNotFound, "BlobNotFound")
	case r.Method == http.MethodDelete:
		delete(s.blobs, name)
		w.WriteHeader(http.StatusAccepted)
	default:
		if r.Header.Get("x-ms-range") != "" {
			r.Header.Set("Range", r.Header.Get("x-ms-range"))
		}
		r.Header.Del("If-Match")
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, len(data)))
		http.ServeContent(w, r, "blob.bin", clock()(), bytes.NewReader(data))
	}
}

func (s *blobServer) list(w io.Writer, prefix, delimiter string) {
	type blob struct {
		Name string `xml:"Name"`
		Size int    `xml:"Properties>Content-Length"`
	}
	type dirPrefix struct{ Name string }
	var answer struct {
		XMLName  xml.Name    `xml:"EnumerationResults"`
		Blobs    []blob      `xml:"Blobs>Blob"`
		Prefixes []dirPrefix `xml:"Blobs>BlobPrefix"`
	}
	for name, data := range s.blobs {
		rest, below := strings.CutPrefix(name, prefix)
		dir, _, deeper := strings.Cut(rest, "/")
		switch {
		case !below:
		case delimiter != "" && deeper:
			if p := (dirPrefix{prefix + dir + "/"}); !slices.Contains(answer.Prefixes, p) {
				answer.Prefixes = append(answer.Prefixes, p)
			}
		default:
			answer.Blobs = append(answer.Blobs, blob{name, len(data)})
		}
	}
	_ = xml.NewEncoder(w).Encode(answer) // to a recorder or a connection that the client watches
}

// download writes all blobs to the disk.
func (s *blobServer) download(t *testing.T) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := t.TempDir()
	for name, data := range s.blobs {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	return dir
}

func TestAzureCopies(t *testing.T) {
	t.Parallel()
	for _, layout := range []export.Layout{{Structured: true}, {Keep: 1}, {Zip: true}} {
		t.Run(fmt.Sprintf("%+v", layout), func(t *testing.T) {
			blobs := &blobServer{blobs: map[string][]byte{}}
			server := httptest.NewServer(blobs)
			t.Cleanup(server.Close)
			place, err := export.NewAzure(export.AzureOptions{URL: server.URL, Container: "copies", SAS: "?sig=secret", Scratch: t.TempDir()})
			must(t, err)
			e := exporter(t, export.Options{Place: place, Layout: layout})
			u := newUpstream(t, "example.com/acme/api")
			for range 2 {
				u.commit(t)
				blobs.fails = 1
				backUp(t, e, u)
			}
			dir := blobs.download(t)
			at := filepath.Join(dir, "example.com/acme/api")
			switch {
			case layout.Zip:
				unzip(t, filepath.Join(dir, "api.zip"), dir)
				at = filepath.Join(dir, "api")
			case layout.Keep > 0:
				at = filepath.Join(dir, "api")
				copies := names(t, at)
				if len(copies) != 1 {
					t.Fatalf("copies %v", copies)
				}
				at = filepath.Join(at, copies[0])
			}
			same(t, u, at)
		})
	}
}

func TestAzureFaultsHaveClassesAndNoSignature(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(&blobServer{blobs: map[string][]byte{}})
	url := server.URL
	tests := []struct {
		name      string
		container string
		sas       fault.Secret
		want      error
	}{
		{"signature refused", "copies", "sig=elsewhere", fault.ErrDenied},
		{"no container", "absent", "sig=secret", fault.ErrInvalid},
		{"no server", "copies", "sig=secret", fault.ErrUnavailable},
	}
	u := newUpstream(t, "example.com/acme/api")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if errors.Is(test.want, fault.ErrUnavailable) {
				server.Close()
			}
			place, err := export.NewAzure(export.AzureOptions{URL: url, Container: test.container, SAS: test.sas})
			must(t, err)
			_, err = protect.Backup(t.Context(), exporter(t, export.Options{Place: place}), u.source(t), "")
			if !errors.Is(err, test.want) {
				t.Errorf("got %v", err)
			}
			if err == nil || strings.Contains(err.Error()+place.String(), "sig=") {
				t.Errorf("the signature shows: %v", err)
			}
		})
	}
}
