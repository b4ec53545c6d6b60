package github

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// App is a GitHub App as it is installed for an account.
type App struct {
	ID             int64
	InstallationID int64
	PrivateKey     fault.Secret // PEM
}

const (
	// An installation's token lives an hour. It is renewed early, for what starts with it should end with it.
	tokenMargin = 10 * time.Minute
	// GitHub refuses a JWT that lives longer than ten minutes, or was made in the future by its own clock.
	jwtLife = 9 * time.Minute
	jwtSkew = time.Minute
)

// authorize gives a request its credentials.
func (p *Provider) authorize(ctx context.Context, header http.Header) error {
	username, password, err := p.GitCredentials(ctx)
	switch {
	case err != nil:
		return err
	case password == "":
	case p.app == nil && p.o.Token == "":
		forge.SetBasicAuth(header, username, password)
	default:
		header.Set("Authorization", "Bearer "+password.Reveal())
	}
	return nil
}

// GitCredentials returns what git over https takes, empty without credentials. An App's password is good for ten minutes at
// least: ask again for each repository.
func (p *Provider) GitCredentials(ctx context.Context) (username string, password fault.Secret, err error) {
	switch {
	case p.app != nil:
		password, err = p.app.token(ctx)
		return "x-access-token", password, err
	case p.o.Token != "":
		return "x-access-token", p.o.Token, nil
	case p.o.Password != "":
		return p.o.Username, p.o.Password, nil
	}
	return "", "", nil
}

// installation is an App for one account. It speaks with a JWT of the App's key, and gets tokens for the rest of the API.
type installation struct {
	app    App
	key    *rsa.PrivateKey
	now    func() time.Time
	client *forge.Client

	mu      sync.Mutex // held while a token is got, so that one is enough
	current fault.Secret
	expires time.Time
}

func newInstallation(o forge.ClientOptions, app App) (*installation, error) {
	if app.ID <= 0 || app.InstallationID <= 0 || app.PrivateKey == "" {
		return nil, fault.New("app", fault.ErrInvalid, "it needs an id, an installation's id and a private key", "")
	}
	key, err := parseKey(app.PrivateKey)
	if err != nil {
		return nil, fault.Wrap("private key of the app", fault.ErrInvalid, err, "take the .pem file that GitHub made for the app")
	}
	i := &installation{app: app, key: key, now: o.Clock}
	o.Secrets = []fault.Secret{app.PrivateKey}
	if i.now == nil {
		i.now = time.Now //nolint:forbidigo // tokens end by the real clock
	}
	o.Authorize = func(_ context.Context, header http.Header) error {
		jwt, err := i.jwt()
		if err == nil {
			header.Set("Authorization", "Bearer "+jwt.Reveal())
		}
		return err
	}
	i.client, err = forge.NewClient(o)
	return i, err
}

// parseKey reads a PEM file of PKCS #1, as GitHub makes it, or PKCS #8. Its errors show nothing of the key.
func parseKey(text fault.Secret) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text.Reveal()))
	if block == nil {
		return nil, errors.New("it is no PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, isRSA := parsed.(*rsa.PrivateKey)
	if err != nil || !isRSA {
		return nil, errors.New("it is no RSA private key")
	}
	return key, nil
}

// jwt says that we are the App: RFC 7519, signed by RS256.
func (i *installation) jwt() (fault.Secret, error) {
	now := i.now()
	claims, err := json.Marshal(map[string]any{
		"iat": now.Add(-jwtSkew).Unix(), "exp": now.Add(jwtLife).Unix(), "iss": strconv.FormatInt(i.app.ID, 10),
	})
	if err != nil {
		return "", fmt.Errorf("sign as app: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(claims)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, digest[:])
	if err != nil {
		return "", fault.Wrap("sign as app", fault.ErrInvalid, err, "")
	}
	return fault.Secret(signed + "." + encode(signature)), nil
}

// token returns a token that is good for tokenMargin at least.
func (i *installation) token(ctx context.Context) (fault.Secret, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.current != "" && i.now().Add(tokenMargin).Before(i.expires) {
		return i.current, nil
	}
	var answer struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires_at"`
	}
	if _, err := i.client.Do(ctx, http.MethodPost, i.path()+"/access_tokens", nil, nil, &answer); err != nil {
		return "", fault.Wrap("token of the app's installation", nil, err,
			"check the app's id, its key, and that it is installed and not suspended")
	}
	if answer.Token == "" {
		return "", fault.New("token of the app's installation", fault.ErrCorrupt, "the answer holds none", "")
	}
	i.current, i.expires = fault.Secret(answer.Token), answer.Expires
	return i.current, nil
}

func (i *installation) path() string {
	return "/app/installations/" + strconv.FormatInt(i.app.InstallationID, 10)
}

// budget tells the installation's requests from the App's own, and from those of the App's other installations: GitHub counts each
// apart.
func (i *installation) budget() []fault.Secret {
	return []fault.Secret{i.app.PrivateKey, fault.Secret(i.path())}
}

// description is what GitHub knows of an installation.
type description struct {
	Account     account           `json:"account"`
	Permissions map[string]string `json:"permissions"` // "contents": "read"
}

func (i *installation) describe(ctx context.Context) (description, error) {
	var d description
	_, err := i.client.Do(ctx, http.MethodGet, i.path(), nil, nil, &d)
	return d, fault.Wrap("installation of the app", nil, err, "check the app's id, its installation's id and its key")
}
