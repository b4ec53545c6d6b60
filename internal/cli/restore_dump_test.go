package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

func TestADumpTakesRepositoriesWithMetadata(t *testing.T) {
	part := func(name, kind string, state point.State) point.Part {
		return point.Part{Name: name, Kind: kind, State: state}
	}
	all := []point.Part{
		part("forge/github.com/acme/api/metadata", point.KindMetadata, point.Stored),
		part("forge/github.com/acme/bare/metadata", point.KindMetadata, point.Carried),
		part("forge/github.com/acme/lost/metadata", point.KindMetadata, point.Stored),
		part("forge/github.com/acme/off/metadata", point.KindMetadata, point.Skipped),
		part("git/github.com/acme/api.git", point.KindGit, point.Stored),
		part("git/github.com/acme/api.wiki.git", point.KindGit, point.Stored),
		part("git/github.com/acme/bare.git", point.KindGit, point.Stored),
		part("git/github.com/acme/lost.git", point.KindGit, point.Failed),
		part("git/github.com/acme/off.git", point.KindGit, point.Stored),
	}
	const api = "[{git/github.com/acme/api.git github.com/acme/api/git} {git/github.com/acme/api.wiki.git github.com/acme/api/git.wiki.git} " +
		"{forge/github.com/acme/api/metadata github.com/acme/api}"
	for name, test := range map[string]struct {
		want    string
		lacking bool
	}{
		"":         {api + " {git/github.com/acme/bare.git github.com/acme/bare/git} {forge/github.com/acme/bare/metadata github.com/acme/bare}]", true},
		"acme/api": {api + "]", false}, "github.com/acme/api.git": {api + "]", false}, "forge/github.com/acme/api/metadata": {api + "]", false},
		"lost": {"[]", true}, "off": {"[]", false}, "pi": {"[]", false},
	} {
		parts, err := dumpParts(all, name)
		for i := range parts {
			parts[i].place = filepath.ToSlash(parts[i].place)
		}
		if got := fmt.Sprint(parts); got != test.want || errors.Is(err, fault.ErrIncomplete) != test.lacking {
			t.Errorf("%q: %s, %v; want %s", name, got, err, test.want)
		}
	}
}

func TestAFormatGoesWithADirectory(t *testing.T) {
	dump := dumpRestore{format: formatGitea}
	for name, test := range map[string]struct {
		options restoreOptions
		ok      bool
	}{
		"none":         {restoreOptions{forge: "gitea"}, true},
		"a directory":  {restoreOptions{to: "dir", dump: dump, owner: "acme"}, true},
		"a URL":        {restoreOptions{to: "https://git.example.org/acme/api.git", dump: dump}, false},
		"a forge":      {restoreOptions{forge: "gitea", dump: dump}, false},
		"a checkout":   {restoreOptions{to: "dir", checkout: true, dump: dump}, false},
		"another one":  {restoreOptions{to: "dir", dump: dumpRestore{format: "zip"}}, false},
		"GitLab's":     {restoreOptions{to: "api.tar.gz", dump: dumpRestore{format: formatGitLab}}, true},
		"an owner":     {restoreOptions{to: "api.tar.gz", owner: "x", dump: dumpRestore{format: formatGitLab}}, false},
		"only a site":  {restoreOptions{to: "dir", dump: dumpRestore{site: "https://git.example.org"}}, false},
		"some of refs": {restoreOptions{to: "dir", refs: []string{"main"}, dump: dump}, false},
	} {
		if err := test.options.checkDump(); (err == nil) != test.ok || err != nil && !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
