package github_test

import (
	"net/http"
	"testing"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
	"github.com/backstay/backstay/internal/forge/github/githubtest"
)

func TestConformance(t *testing.T) {
	forgetest.Run(t, forgetest.Dialect{
		Handler: func(w *forgetest.World) http.Handler { return described(t, &githubtest.API{World: w}) },
		New: func(o forge.ClientOptions) (forge.Provider, error) {
			return github.New(github.Options{URL: o.Base, Token: forgetest.Token, Client: o})
		},
		ETags: true, Scope: "repo", Expiry: true,
	})
}
