package kando

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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

// azureServer is one container of Azure Blob Storage, as far as kando needs it. It takes the signature "sig=sesame", and requests that
// the account "store" has signed.
type azureServer struct {
	*httptest.Server
	mu     sync.Mutex
	blobs  map[string][]byte
	blocks map[string][]byte // by name of the blob and id
	fails  int               // answers 503 so many times
}

const azureKey = "bm90LW11Y2gtb2YtYS1zZWNyZXQ="

func newAzure(t *testing.T) *azureServer {
	t.Helper()
	s := &azureServer{blobs: map[string][]byte{}, blocks: map[string][]byte{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *azureServer) profile() Document {
	return Document{
		Location:   Location{Type: TypeAzure, Bucket: bucketB, Endpoint: s.URL, Prefix: "pre/fix"},
		Credential: Credential{Type: CredentialKeyPair, KeyPair: &KeyPair{"store", azureKey}},
	}
}

func (s *azureServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refuse := func(status int, code string) {
		w.Header().Set("x-ms-error-code", code)
		w.WriteHeader(status)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	name, inContainer := strings.CutPrefix(r.URL.Path, "/"+bucketB)
	name = strings.TrimPrefix(name, "/")
	data, there := s.blobs[name]
	q := r.URL.Query()
	switch {
	case s.fails > 0:
		s.fails--
		refuse(http.StatusServiceUnavailable, "ServerBusy")
	case q.Get("sig") != "sesame" && !strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey store:"):
		refuse(http.StatusForbidden, "AuthenticationFailed")
	case !inContainer:
		refuse(http.StatusNotFound, "ContainerNotFound")
	case q.Get("comp") == "list":
		s.list(w, q.Get("prefix"))
	case q.Get("comp") == "block":
		s.blocks[name+" "+q.Get("blockid")] = body
		w.WriteHeader(http.StatusCreated)
	case q.Get("comp") == "blocklist":
		s.commit(w, name, body)
	case r.Method == http.MethodPut:
		s.blobs[name] = body
		w.WriteHeader(http.StatusCreated)
	case !there:
		refuse(http.StatusNotFound, "BlobNotFound")
	case r.Method == http.MethodDelete:
		delete(s.blobs, name)
		w.WriteHeader(http.StatusAccepted)
	default:
		w.Header().Set("ETag", `"1"`)
		http.ServeContent(w, r, "blob", time.Time{}, bytes.NewReader(data))
	}
}

func (s *azureServer) commit(w http.ResponseWriter, name string, body []byte) {
	var list struct {
		Latest []string `xml:"Latest"`
	}
	if xml.Unmarshal(body, &list) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.blobs[name] = []byte{}
	for _, id := range list.Latest {
		s.blobs[name] = append(s.blobs[name], s.blocks[name+" "+id]...)
	}
	w.WriteHeader(http.StatusCreated)
}

func (s *azureServer) list(w io.Writer, prefix string) {
	type blob struct{ Name string }
	var found struct {
		XMLName xml.Name `xml:"EnumerationResults"`
		Blobs   []blob   `xml:"Blobs>Blob"`
	}
	for name := range s.blobs {
		if strings.HasPrefix(name, prefix) {
			found.Blobs = append(found.Blobs, blob{name})
		}
	}
	_ = xml.NewEncoder(w).Encode(found) // the client watches
}

func TestAzure(t *testing.T) {
	t.Parallel()
	server := newAzure(t)
	secret := server.profile()
	secret.Credential = Credential{Type: CredentialSecret, Secret: &Secret{Type: "secrets.kanister.io/azure", Data: map[string][]byte{
		"azure_storage_account_id": []byte("store"), "azure_storage_key": []byte(azureKey), "azure_storage_environment": []byte("AzurePublicCloud"),
	}}}
	for i, d := range []Document{server.profile(), secret} {
		server.fails = 1
		exchange(t, inline(t, d), fmt.Sprintf("/%d", i))
	}
	if len(server.blobs) != 2 || server.blobs["pre/fix/1/dump-10"] == nil {
		t.Errorf("%d blobs", len(server.blobs))
	}
}

func TestAzureSignatureOfTheCluster(t *testing.T) {
	t.Parallel()
	server := newAzure(t)
	d := server.profile()
	d.Credential = Credential{Type: CredentialSecret, Secret: &Secret{Type: "secrets.kanister.io/azure", Data: map[string][]byte{
		"azure_storage_account_id": []byte("store"), "azure_federated_identity": []byte("True"),
	}}}
	file := filepath.Join(t.TempDir(), "token")
	push := func(signature string) error {
		must(t, os.WriteFile(file, []byte(signature+"\n"), 0o600))
		s := &session{stdin: strings.NewReader("x"), env: map[string]string{"AZURE_SAS_TOKEN_FILE": file}}
		return s.run(t.Context(), "location", "push", "-", "-p", inline(t, d), "-s", "x")
	}
	must(t, push("sig=sesame"))
	if err := push("sig=hunter22"); !errors.Is(err, fault.ErrDenied) || strings.Contains(err.Error(), "hunter22") {
		t.Errorf("a wrong signature: %v", err)
	}
	refused(t, fault.ErrDenied, "x", "location", "push", "-", "-p", inline(t, d), "-s", "x")
}

func TestAzureFaultsHaveClasses(t *testing.T) {
	t.Parallel()
	server := newAzure(t)
	reset := errors.New("connection reset")
	for _, size := range []int64{5, 20 << 20} {
		s := &session{stdin: broken(size, reset)}
		if err := s.run(t.Context(), "location", "push", "-", "-p", inline(t, server.profile()), "-s", "cut"); !errors.Is(err, reset) {
			t.Errorf("a stream that broke: %v", err)
		}
	}
	if len(server.blobs) > 0 {
		t.Errorf("%d blobs", len(server.blobs))
	}
	absent, other, key := server.profile(), server.profile(), server.profile()
	absent.Location.Bucket = "absent"
	other.Credential.KeyPair = &KeyPair{"another", azureKey}
	key.Credential.KeyPair = &KeyPair{"store", "no base 64!"}
	refused(t, fault.ErrInvalid, "x", "location", "push", "-", "-p", inline(t, absent), "-s", "x")
	refused(t, fault.ErrDenied, "x", "location", "pull", "-", "-p", inline(t, other), "-s", "x")
	refused(t, fault.ErrInvalid, "x", "location", "delete", "-p", inline(t, key), "-s", "x")
}
