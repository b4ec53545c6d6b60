package githubtest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/forgetest"
)

// InstallationToken begins every token that an App's installation gets.
const InstallationToken = "ghs_forgetest-installation-"

// serveApp answers what an App asks with its JWT.
func (x *exchange) serveApp() {
	if err := x.checkJWT(); err != nil {
		x.answer(http.StatusUnauthorized, map[string]any{"message": err.Error(), "documentation_url": "https://docs.github.com/rest"})
		return
	}
	path := fmt.Sprintf("/app/installations/%d", x.App.InstallationID)
	switch x.r.Method + " " + x.r.URL.Path {
	case "GET " + path:
		x.answer(http.StatusOK, x.installation(path))
	case "POST " + path + "/access_tokens":
		token, ends := x.issue()
		x.answer(http.StatusCreated, map[string]any{
			"token": token, "expires_at": ends.UTC().Format(time.RFC3339), "permissions": x.App.Permissions, "repository_selection": "selected",
		})
	default:
		x.notFound()
	}
}

// checkJWT checks the signature, and the times as GitHub does.
func (x *exchange) checkJWT() error {
	text, isBearer := strings.CutPrefix(x.r.Header.Get("Authorization"), "Bearer ")
	parts := strings.Split(text, ".")
	if x.App == nil || !isBearer || len(parts) != 3 {
		return errors.New("A JSON web token could not be decoded") //nolint:staticcheck // GitHub's own words
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(x.App.Key, crypto.SHA256, digest[:], signature); err != nil {
		return err
	}
	var head struct{ Alg string }
	var claims struct {
		Iat, Exp int64
		Iss      string
	}
	for i, into := range []any{&head, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, into); err != nil {
			return err
		}
	}
	now := x.World.Now().Unix()
	if head.Alg != "RS256" || claims.Iat > now || claims.Exp <= now || claims.Exp > now+600 || claims.Iss != strconv.FormatInt(x.App.ID, 10) {
		return fmt.Errorf("'Issued at' claim ('iat') or 'Expiration time' claim ('exp') is not right: %+v at %d", claims, now)
	}
	return nil
}

// issue makes a token that lives an hour.
func (a *API) issue() (string, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	token, ends := fmt.Sprint(InstallationToken, len(a.issued)+1), a.World.Now().Add(time.Hour)
	a.issued, a.ends = append(a.issued, token), append(a.ends, ends)
	return token, ends
}

// Issued counts the tokens that the App's installation has got.
func (a *API) Issued() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.issued)
}

// valid reports whether the installation's token is one, and has not ended.
func (a *API) valid(token string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.Index(a.issued, token)
	return i >= 0 && a.World.Now().Before(a.ends[i])
}

func (x *exchange) installation(path string) map[string]any {
	at := x.rest + path
	return map[string]any{
		"id": x.App.InstallationID, "app_id": x.App.ID, "app_slug": "backstay", "target_id": x.World.OwnerID(x.App.Account),
		"target_type": "Organization", "account": x.account(x.App.Account, false), "repository_selection": "selected", "single_file_name": nil,
		"access_tokens_url": at + "/access_tokens", "repositories_url": x.rest + "/installation/repositories", "html_url": x.web + path,
		"permissions": x.App.Permissions, "events": []any{}, "suspended_by": nil, "suspended_at": nil,
		"created_at": "2020-01-02T03:04:05Z", "updated_at": "2020-01-02T03:04:05Z",
	}
}

func (x *exchange) installed() {
	if !x.app {
		x.answer(http.StatusForbidden, map[string]any{"message": "You must authenticate with an installation access token", "documentation_url": "https://docs.github.com/rest"})
		return
	}
	var all []forgetest.Repo
	for _, id := range x.App.Repositories {
		if r, ok := x.World.ByID(id); ok {
			all = append(all, r)
		}
	}
	total := len(all)
	if x.App.Short {
		total++
	}
	x.page("/installation/repositories", x.objects(all), func(page []any) any {
		return map[string]any{"total_count": total, "repository_selection": "selected", "repositories": page}
	})
}
