package kando

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// gcsServer is one bucket of Google Cloud Storage, as far as kando needs it, with the server that gives out its tokens.
type gcsServer struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string][]byte
	uploads map[string][]byte // resumable ones, by their names
	fails   int               // answers 503 so many times
}

func newGCS(t *testing.T) *gcsServer {
	t.Helper()
	s := &gcsServer{objects: map[string][]byte{}, uploads: map[string][]byte{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *gcsServer) profile(t *testing.T) Document {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "p", "client_email": "kando@p", "token_uri": s.URL + "/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	must(t, err)
	return Document{
		Location:   Location{Type: TypeGCS, Bucket: bucketB, Endpoint: s.URL + "/storage/v1/", Prefix: "pre/fix"},
		Credential: Credential{Type: CredentialKeyPair, KeyPair: &KeyPair{"p", string(account)}},
	}
}

func (s *gcsServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	const objects = "/storage/v1/b/" + bucketB + "/o"
	name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, objects), "/")
	data, there := s.objects[name]
	q := r.URL.Query()
	switch {
	case r.URL.Path == "/token":
		answer(w, map[string]any{"access_token": "sesame", "token_type": "Bearer", "expires_in": 3600})
	case s.fails > 0:
		s.fails--
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Header.Get("Authorization") != "Bearer sesame":
		w.WriteHeader(http.StatusForbidden)
	case r.URL.Path == "/upload"+objects:
		s.begin(w, r, q.Get("uploadType"), q.Get("name"), body)
	case strings.HasPrefix(r.URL.Path, "/resume/"):
		s.resume(w, r, strings.TrimPrefix(r.URL.Path, "/resume/"), body)
	case !strings.HasPrefix(r.URL.Path, objects):
		w.WriteHeader(http.StatusNotFound)
	case name == "":
		s.list(w, q.Get("prefix"))
	case !there:
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodDelete:
		delete(s.objects, name)
		w.WriteHeader(http.StatusNoContent)
	default:
		sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
		w.Header().Set("X-Goog-Hash", "crc32c="+base64Of(sum))
		w.Header().Set("X-Goog-Generation", "1")
		http.ServeContent(w, r, "object", time.Time{}, bytes.NewReader(data))
	}
}

func (s *gcsServer) begin(w http.ResponseWriter, r *http.Request, kind, name string, body []byte) {
	if kind == "resumable" {
		var object struct{ Name string }
		if json.Unmarshal(body, &object) == nil && object.Name != "" {
			name = object.Name
		}
		s.uploads[name] = nil
		w.Header().Set("Location", s.URL+"/resume/"+name)
		return
	}
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	var all [][]byte
	for {
		p, err := parts.NextPart()
		if err != nil {
			break
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return
		}
		all = append(all, b)
	}
	var object struct{ Name string }
	if len(all) != 2 || json.Unmarshal(all[0], &object) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.objects[object.Name] = all[1]
	answer(w, map[string]any{"name": object.Name, "size": fmt.Sprint(len(all[1]))})
}

// resume takes a chunk: "bytes 0-9/*", or "bytes 10-19/20" for the last.
func (s *gcsServer) resume(w http.ResponseWriter, r *http.Request, name string, body []byte) {
	total := strings.TrimPrefix(r.Header.Get("Content-Range"), "bytes ")
	_, total, _ = strings.Cut(total, "/")
	s.uploads[name] = append(s.uploads[name], body...)
	if total == "*" {
		w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", len(s.uploads[name])-1))
		w.Header().Set("X-Http-Status-Code-Override", "308") // as clients ask for that take no 308
		return
	}
	s.objects[name] = s.uploads[name]
	delete(s.uploads, name)
	answer(w, map[string]any{"name": name, "size": total})
}

func (s *gcsServer) list(w http.ResponseWriter, prefix string) {
	items := []map[string]string{}
	for name := range s.objects {
		if strings.HasPrefix(name, prefix) {
			items = append(items, map[string]string{"name": name})
		}
	}
	answer(w, map[string]any{"items": items})
}

func answer(w http.ResponseWriter, document any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(document) // the client watches
}

func base64Of(sum uint32) string {
	b, _ := json.Marshal([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return strings.Trim(string(b), `"`)
}

func TestGCS(t *testing.T) {
	t.Parallel()
	server := newGCS(t)
	d := server.profile(t)
	secret := d
	secret.Credential = Credential{Type: CredentialSecret, Secret: &Secret{Type: "secrets.kanister.io/gcp", Data: map[string][]byte{
		"gcp_project_id": []byte("p"), "service-account.json": []byte(d.Credential.KeyPair.Secret),
	}}}
	for i, d := range []Document{d, secret} {
		server.fails = 1
		exchange(t, inline(t, d), fmt.Sprintf("/%d", i))
	}
	if len(server.objects) != 2 || server.objects["pre/fix/1/dump-10"] == nil {
		t.Errorf("%d objects", len(server.objects))
	}
}

func TestGCSFaultsHaveClasses(t *testing.T) {
	t.Parallel()
	server := newGCS(t)
	d := server.profile(t)
	reset := errors.New("connection reset")
	for _, size := range []int64{5, 20 << 20} {
		s := &session{stdin: broken(size, reset)}
		if err := s.run(t.Context(), "location", "push", "-", "-p", inline(t, d), "-s", "cut"); !errors.Is(err, reset) {
			t.Errorf("a stream that broke: %v", err)
		}
	}
	if len(server.objects) > 0 {
		t.Errorf("%d objects", len(server.objects))
	}
	program := d
	program.Credential.KeyPair = &KeyPair{"p", `{"type":"external_account","credential_source":{"executable":{"command":"/bin/sh"}}}`}
	refused(t, fault.ErrInvalid, "x", "location", "push", "-", "-p", inline(t, program), "-s", "x")
	absent := d
	absent.Location.Bucket = "absent"
	refused(t, fault.ErrNotFound, "x", "location", "push", "-", "-p", inline(t, absent), "-s", "x")
}
