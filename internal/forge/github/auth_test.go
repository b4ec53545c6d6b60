package github_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
)

var appKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// pemOf writes a key in a PEM file of PKCS #1, as GitHub makes it.
func pemOf(key *rsa.PrivateKey) fault.Secret {
	return fault.Secret(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

// serveApp is a GitHub with an App in acme, that may see two repositories.
func serveApp(t *testing.T, account string) (*served, github.Options) {
	t.Helper()
	key, err := appKey()
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, &githubtest.API{App: &githubtest.App{
		ID: 12, InstallationID: 345, Key: &key.PublicKey, Account: account, Permissions: map[string]string{"metadata": "read", "contents": "read"},
	}})
	ids := populate(s)
	s.App.Repositories = []int64{ids["acme/api"], ids["tester/secrets"]}
	return s, github.Options{App: &github.App{ID: 12, InstallationID: 345, PrivateKey: pemOf(key)}}
}

func isTokenRequest(r forgetest.Request) bool { return strings.HasSuffix(r.Path, "/access_tokens") }

func TestAppLists(t *testing.T) {
	s, o := serveApp(t, "tester")
	for _, test := range []struct {
		s    forge.Selection
		want []string
	}{
		{forge.Selection{}, []string{"acme/api", "tester/secrets"}},
		{forge.Selection{User: "tester"}, []string{"tester/secrets"}},
		{forge.Selection{User: "octocat"}, []string{"octocat/hello"}},
		{forge.Selection{Organization: "acme"}, []string{"acme/api", "acme/dotfiles"}},
	} {
		got, _, err := list(t.Context(), s.connect(t, o), test.s)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%+v: got %q, %v; want %q", test.s, got, err, test.want)
		}
	}
	for what, selection := range map[string]forge.Selection{
		"contributed": {Contributed: true}, "starred": {Starred: true}, "gists": {Gists: true},
	} {
		_, _, err := list(t.Context(), s.connect(t, o), selection)
		wantClass(t, err, fault.ErrUnsupported, what)
	}
	s.App.Short = true
	_, _, err := list(t.Context(), s.connect(t, o), forge.Selection{})
	wantClass(t, err, fault.ErrIncomplete, "3")
}

// TestAppOfOrganization lists what is public there too, which installations are not asked for.
func TestAppOfOrganization(t *testing.T) {
	s, o := serveApp(t, "acme")
	got, _, err := list(t.Context(), s.connect(t, o), forge.Selection{User: "ACME"})
	if want := []string{"acme/api", "acme/dotfiles"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAppToken(t *testing.T) {
	s, o := serveApp(t, "acme")
	p := s.connect(t, o)
	credentials := func() string {
		username, password, err := p.GitCredentials(t.Context())
		if err != nil || username != "x-access-token" {
			t.Errorf("got %s, %v", username, err)
		}
		return password.Reveal()
	}
	var together sync.WaitGroup
	for range 20 {
		together.Go(func() { credentials() })
	}
	together.Wait()
	first := credentials()
	if n := s.Count(isTokenRequest); n != 1 || first != githubtest.InstallationToken+"1" {
		t.Errorf("%d tokens were asked for, the first is %q", n, first)
	}
	s.clock.Advance(49 * time.Minute)
	if again := credentials(); again != first {
		t.Errorf("after 49 minutes the token is %q", again)
	}
	s.clock.Advance(2 * time.Minute)
	if next := credentials(); next == first || s.Issued() != 2 {
		t.Errorf("nine minutes before its end the token is %q still; %d were asked for", next, s.Issued())
	}
	if _, _, err := list(t.Context(), p, forge.Selection{}); err != nil {
		t.Error(err)
	}
	if s.Issued() != 2 {
		t.Errorf("a listing took a token of its own")
	}
	for range 5 { // a run of five hours, with a server that has trouble
		s.Break(forgetest.Break{
			Match: func(r *http.Request) bool { return r.Method == http.MethodPost }, Times: 1, Fault: forgetest.Answer(502, "{}"),
		})
		s.clock.Advance(time.Hour)
		if _, _, err := list(t.Context(), p, forge.Selection{}); err != nil {
			t.Error(err)
		}
	}
}

func TestAppInspect(t *testing.T) {
	s, o := serveApp(t, "acme")
	c, err := s.connect(t, o).Inspect(t.Context())
	if err != nil || c.Account != "acme" || len(c.Missing) > 0 || c.Remaining != 4321 || !c.Expires.IsZero() {
		t.Errorf("got %+v, %v", c, err)
	}
	delete(s.App.Permissions, "metadata")
	o.Copies = true
	c, err = s.connect(t, o).Inspect(t.Context())
	if want := []string{"metadata:read", "administration:write", "contents:write", "workflows:write"}; err != nil || !slices.Equal(c.Missing, want) {
		t.Errorf("got %q missing, %v; want %q", c.Missing, err, want)
	}
}

func TestAppRefused(t *testing.T) {
	s, o := serveApp(t, "acme")
	other := *o.App
	other.ID = 13
	_, _, err := list(t.Context(), s.connect(t, github.Options{App: &other}), forge.Selection{Organization: "acme"})
	wantClass(t, err, fault.ErrDenied, "token of the app's installation")
	if _, _, err := s.connect(t, github.Options{App: &other}).GitCredentials(t.Context()); err == nil {
		t.Error("git gets credentials that there are none of")
	}
	gone := *o.App
	gone.InstallationID = 346
	_, err = s.connect(t, github.Options{App: &gone}).Inspect(t.Context())
	wantClass(t, err, fault.ErrNotFound, "installation of the app")
}

func TestAppKeys(t *testing.T) {
	key, err := appKey()
	if err != nil {
		t.Fatal(err)
	}
	modern, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	elliptic, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(der []byte) fault.Secret {
		return fault.Secret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	for name, test := range map[string]struct {
		app  github.App
		good bool
	}{
		"PKCS #1":         {github.App{ID: 1, InstallationID: 2, PrivateKey: pemOf(key)}, true},
		"PKCS #8":         {github.App{ID: 1, InstallationID: 2, PrivateKey: encode(modern)}, true},
		"elliptic":        {github.App{ID: 1, InstallationID: 2, PrivateKey: encode(elliptic)}, false},
		"no PEM":          {github.App{ID: 1, InstallationID: 2, PrivateKey: "hunter22hunter22"}, false},
		"damaged":         {github.App{ID: 1, InstallationID: 2, PrivateKey: encode([]byte("hunter22hunter22"))}, false},
		"no id":           {github.App{InstallationID: 2, PrivateKey: pemOf(key)}, false},
		"no installation": {github.App{ID: 1, PrivateKey: pemOf(key)}, false},
		"no key":          {github.App{ID: 1, InstallationID: 2}, false},
	} {
		_, err := github.New(github.Options{App: &test.app})
		if test.good && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !test.good {
			wantClass(t, err, fault.ErrInvalid, "")
			if strings.Contains(err.Error(), "hunter22") {
				t.Errorf("%s: the key shows in: %v", name, err)
			}
		}
	}
}

// TestSecretsShowNowhere has a server that gives back all that it gets.
func TestSecretsShowNowhere(t *testing.T) {
	key, err := appKey()
	if err != nil {
		t.Fatal(err)
	}
	const password = "correct-horse-battery"
	s, app := serveApp(t, "acme")
	for name, o := range map[string]github.Options{
		"token": {}, "password": {Username: "tester", Password: password}, "app": app,
	} {
		p := s.connect(t, o)
		if name == "app" { // its token is got before the server turns
			if _, _, err := p.GitCredentials(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.Break(forgetest.Break{Fault: func(w http.ResponseWriter, r *http.Request, _, _ *httptest.ResponseRecorder) {
			forgetest.Answer(http.StatusForbidden, fmt.Sprintf(`{"message":%q}`, r.Header.Get("Authorization")))(w, r, nil, nil)
		}})
		_, _, err := list(t.Context(), p, forge.Selection{Organization: "acme"})
		_, inspected := p.Inspect(t.Context())
		said := fmt.Sprintf("%v %v %q %+v %#v", err, inspected, fault.Hints(err), o, o)
		for _, secret := range []string{forgetest.Token, password, githubtest.InstallationToken, "eyJ", pemOf(key).Reveal()[40:80]} {
			if strings.Contains(said, secret) {
				t.Errorf("%s: %q shows in: %s", name, secret, said)
			}
		}
		wantClass(t, err, fault.ErrDenied, "403")
		s.Mend()
	}
}
