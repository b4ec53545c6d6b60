package internal_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/backstay/backstay"

// row is what one package may import. Standard packages are free, but for those in doors.
type row struct {
	ours    string // packages of this module, space separated
	foreign string // prefixes of import paths of other modules, and of standard packages in doors
	tests   string // prefixes that only its tests may import besides; test support of ours and others' alike
}

// doors are standard packages that need leave like a foreign library.
var doors = []string{"os/exec", "plugin", "unsafe", "C"}

// kubernetes is what speaks to clusters.
const kubernetes = "k8s.io/api k8s.io/apimachinery k8s.io/client-go sigs.k8s.io/controller-runtime sigs.k8s.io/yaml " +
	"github.com/kubernetes-csi/external-snapshotter/client/v8"

// providers is what each provider of forges may import.
const providers = "internal/fault internal/forge internal/forge/archive internal/forge/neutral"

// table is the architecture: docs/design.md, "The house". Arrows point down. A change here is a commit of its own, with its reason.
var table = map[string]row{
	"cmd/backstay": {ours: "internal/cli", tests: "github.com/rogpeppe/go-internal/testscript"},

	// The spine. It knows no leaf, and the first three know no library either.
	"internal/fault":  {},
	"internal/point":  {},
	"internal/policy": {ours: "internal/fault internal/point", foreign: "github.com/robfig/cron/v3"},
	"internal/point/memory": { // test support: a store in memory
		ours: "internal/fault internal/point", tests: "internal/protect internal/vault/vaulttest",
	},
	"internal/protect": {
		ours: "internal/fault internal/point internal/policy", foreign: "golang.org/x/sync/errgroup",
		tests: "internal/point/memory",
	},

	// Leaves: they satisfy protect's interfaces, and import neither it nor each other.
	"internal/vault": { // it keeps evidence of what is done to its points
		ours: "internal/evidence internal/fault internal/point",
		foreign: "github.com/kopia/kopia golang.org/x/sync golang.org/x/sys/unix " +
			// What kopia's providers answer with: the types of their libraries' errors, and of their credentials.
			"github.com/minio/minio-go/v7 github.com/Azure/azure-sdk-for-go/sdk/azcore google.golang.org/api/googleapi " +
			"github.com/studio-b12/gowebdav golang.org/x/crypto/ssh/knownhosts",
		tests: "internal/protect internal/vault/vaulttest internal/point/memory os/exec golang.org/x/net/webdav",
	},
	"internal/vault/vaulttest": {ours: "internal/fault internal/point internal/protect"}, // test support: what every store must pass
	"internal/evidence":        {ours: "internal/fault internal/point"},                  // signed statements of what was done to points, as data
	"internal/scratchdir":      {foreign: "golang.org/x/sys/unix"},                       // directories for a while, which a kill does not leave for ever
	"internal/git": {
		ours:    "internal/fault internal/point internal/scratchdir",
		foreign: "os/exec golang.org/x/sync golang.org/x/sys/unix",
		tests:   "internal/protect internal/point/memory",
	},

	"internal/forge/archive": {ours: "internal/fault internal/point", tests: "internal/point/memory"}, // what a forge answered, in a part
	"internal/forge/neutral": {ours: "internal/fault"},                                                // what all forges' answers come down to
	"internal/forge":         {ours: "internal/fault internal/point internal/git internal/forge/archive internal/forge/neutral", foreign: "golang.org/x/sync", tests: "internal/protect internal/point/memory internal/forge/forgetest"},
	"internal/forge/forgetest": { // test support: what every provider must pass, and a git server, which runs git
		ours: "internal/fault internal/forge internal/forge/archive internal/forge/neutral internal/point internal/point/memory", foreign: "os/exec",
	},
	"internal/forge/github": {
		ours: providers, tests: "internal/forge/forgetest internal/forge/github/githubtest internal/point/memory",
	},
	"internal/forge/github/githubtest": { // test support: a GitHub
		ours: "internal/forge/forgetest",
	},
	"internal/forge/gitea": {ours: providers, tests: "internal/forge/forgetest internal/point/memory"},
	"internal/forge/gitlab": { // and a GitHub and what a Gitea answered, that things come from and go to
		ours: providers, tests: "internal/forge/forgetest internal/point/memory internal/forge/gitea internal/forge/github internal/forge/github/githubtest",
	},
	"internal/forge/bitbucket": {ours: providers, tests: "internal/forge/forgetest internal/point/memory"},
	"internal/forge/onedev":    {ours: providers, tests: "internal/forge/forgetest internal/point/memory"},
	"internal/forge/sourcehut": {ours: providers, tests: "internal/forge/forgetest internal/point/memory"},
	"internal/forge/offline": { // what points have beside the code, for people to read without a forge
		ours: "internal/fault internal/forge/neutral", foreign: "github.com/yuin/goldmark golang.org/x/net/html modernc.org/sqlite",
		tests: "internal/forge/archive internal/forge/gitea",
	},
	"internal/export": {
		ours:    "internal/fault internal/point",
		foreign: "golang.org/x/sync golang.org/x/sys github.com/minio/minio-go/v7 github.com/Azure/azure-sdk-for-go/sdk github.com/studio-b12/gowebdav",
		tests:   "internal/protect internal/git internal/point/memory golang.org/x/net/webdav os/exec",
	},
	"internal/notify": {
		ours: "internal/fault internal/point", foreign: "github.com/prometheus/client_golang",
	},
	"internal/database": { // it runs the servers' own tools; SQLite is read in process
		ours: "internal/fault internal/point", foreign: "os/exec golang.org/x/sys/unix modernc.org/sqlite",
		tests: "internal/database/databasetest internal/point/memory internal/protect internal/vault",
	},
	"internal/database/databasetest": {ours: "internal/database", foreign: "os/exec"}, // test support: servers
	"internal/schedule":              {ours: "internal/fault"},
	"internal/kube": {
		ours: "api/v1alpha1 internal/fault internal/point", foreign: kubernetes,
		tests: "internal/kube/kubetest internal/point/memory internal/protect",
	},
	"internal/kube/kubetest": {foreign: "os/exec " + kubernetes}, // test support: a kube-apiserver with its etcd
	"internal/kube/volume": {
		ours: "api/v1alpha1 internal/fault internal/point internal/kube", foreign: kubernetes,
		tests: "internal/kube/kubetest",
	},
	"internal/kube/restore": {
		ours: "api/v1alpha1 internal/fault internal/point internal/kube internal/kube/volume", foreign: kubernetes + " github.com/evanphx/json-patch/v5",
		tests: "internal/kube/kubetest internal/point/memory internal/protect",
	},

	"internal/blueprint": { // Kanister's documents and how they run; what phases call is handed in
		ours: "internal/fault internal/kube", foreign: kubernetes + " github.com/Masterminds/sprig/v3", tests: "internal/kube/kubetest",
	},
	"internal/blueprint/function": {
		ours: "internal/fault internal/kube internal/blueprint", foreign: kubernetes + " github.com/aws/aws-sdk-go-v2 github.com/aws/smithy-go",
		tests: "internal/kube/kubetest os/exec",
	},

	"internal/gitops": { // what deploys applications out of git, and how it is held off
		ours: "api/v1alpha1 internal/fault internal/kube", foreign: kubernetes, tests: "internal/kube/kubetest",
	},

	// Front ends.
	"internal/kando": {
		ours:    "internal/evidence internal/fault internal/point internal/protect internal/vault",
		foreign: "github.com/spf13/cobra github.com/spf13/pflag os/exec github.com/minio/minio-go/v7 github.com/Azure/azure-sdk-for-go/sdk cloud.google.com/go/storage google.golang.org/api golang.org/x/oauth2",
	},
	"api/v1alpha1": {foreign: "k8s.io/apimachinery", tests: kubernetes},
	"internal/config": {
		ours: "api/v1alpha1 internal/fault internal/policy", foreign: "go.yaml.in/yaml/v3 k8s.io/apimachinery",
		tests: "internal/kube/kubetest " + kubernetes, // what the API server says to the same documents
	},
	"internal/convert": { // other tools' documents as ours; it speaks to nothing
		ours: "api/v1alpha1 internal/config internal/fault deploy/argocd", foreign: "k8s.io/apimachinery sigs.k8s.io/yaml",
		tests: "internal/kube/kubetest " + kubernetes, // what the API server says to what is written
	},
	"internal/controller": {
		ours: "api/v1alpha1 internal/fault internal/policy internal/kube internal/blueprint internal/gitops", foreign: kubernetes + " golang.org/x/sync github.com/prometheus/client_golang github.com/go-logr/logr",
		tests: "internal/kube/kubetest",
	},
	"internal/worker": { // the other half of the controller: it runs in Jobs, and knows protect
		ours:    "api/v1alpha1 internal/fault internal/point internal/policy internal/protect internal/kube internal/kube/volume internal/kube/restore internal/blueprint internal/database internal/gitops",
		foreign: kubernetes + " golang.org/x/sync", tests: "internal/kube/kubetest internal/point/memory internal/database/databasetest",
	},
	"internal/cli": {
		ours: "api/v1alpha1 internal/config internal/evidence internal/fault internal/point internal/policy internal/protect internal/vault internal/git " +
			"internal/export internal/notify internal/schedule internal/forge internal/forge/archive internal/forge/bitbucket internal/forge/gitea internal/forge/offline " +
			"internal/forge/github internal/forge/gitlab internal/forge/onedev internal/forge/sourcehut " +
			"internal/kube internal/kube/volume internal/controller internal/worker internal/blueprint internal/blueprint/function internal/kando internal/gitops internal/convert internal/database internal/scratchdir",
		// os/exec: --password-command runs what the user names.
		foreign: "github.com/spf13/cobra github.com/spf13/pflag golang.org/x/term os/exec " + kubernetes,
		tests:   "internal/point/memory internal/forge/forgetest internal/forge/github/githubtest internal/forge/neutral internal/database/databasetest", // and what a GitHub has, for diff and restore; a Redis
	},

	// Not part of the product: they drive the built program from outside.
	"bench":         {ours: "internal/database", foreign: "os/exec github.com/minio/minio-go/v7 golang.org/x/sync/errgroup"}, // how fast the server itself is
	"deploy/argocd": {},                                                                                                      // manifests that convert writes
	"deploy": { // the chart, rendered by helm, and what an API server says to it; Blueprints
		tests: "os/exec internal/kube/kubetest internal/blueprint internal/blueprint/function " + kubernetes,
	},
	"test/e2e": { // and Gitea's provider from inside, against a real one, and a GitHub
		tests: "os/exec golang.org/x/net/webdav api/v1alpha1 internal/fault internal/forge internal/forge/archive internal/forge/gitea internal/forge/neutral internal/git internal/point internal/point/memory internal/protect " +
			"internal/forge/forgetest internal/forge/github internal/forge/github/githubtest " +
			"internal/kube internal/gitops golang.org/x/sys github.com/minio/minio-go/v7 " + kubernetes, // what a cluster holds is asked through its API
	},
	"test/cluster/counter": {}, // a program of the application that is backed up on the test cluster
	"internal":             {}, // this test
}

func TestImportsFollowTheTable(t *testing.T) {
	packages, err := readImports(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range violations(packages) {
		t.Error(v)
	}
	for name := range table {
		if _, found := packages[name]; !found {
			t.Errorf("%s: in the table, not in the tree", name)
		}
	}
}

func TestPlantedViolationsAreReported(t *testing.T) {
	tests := []struct {
		name, file, imports, want string
	}{
		{"leaf to leaf", "internal/git/a.go", module + "/internal/vault", "internal/git imports internal/vault"},
		{"leaf to front end", "internal/vault/a.go", module + "/internal/cli", "internal/vault imports internal/cli"},
		{"spine to leaf", "internal/protect/a.go", module + "/internal/git", "internal/protect imports internal/git"},
		{"second door to kopia", "internal/cli/a.go", "github.com/kopia/kopia/repo", "internal/cli imports github.com/kopia/kopia/repo"},
		{"programs from the spine", "internal/protect/a.go", "os/exec", "internal/protect imports os/exec"},
		{"library in the vocabulary", "internal/point/a.go", "golang.org/x/sync/errgroup", "internal/point imports golang.org/x/sync/errgroup"},
		{"undeclared package", "internal/util/a.go", "fmt", "internal/util: not in the table"},
		{"behind a build tag", "internal/git/a_windows.go", module + "/internal/vault", "internal/git imports internal/vault"},
		{"from a test", "internal/git/a_test.go", module + "/internal/vault", "internal/git imports internal/vault in a test"},
		{"a prefix is no path", "internal/vault/a.go", "github.com/kopia/kopiax", "internal/vault imports github.com/kopia/kopiax"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			source := fmt.Sprintf("package p\nimport _ %q\n", test.imports)
			packages, err := readImports(fstest.MapFS{test.file: {Data: []byte(source)}})
			if err != nil {
				t.Fatal(err)
			}
			if got := violations(packages); !slices.Equal(got, []string{test.want}) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// imported is what the files of one package import: by product code, and by its tests alone.
type imported struct{ code, tests map[string]bool }

// readImports parses every Go file of the module at root, whatever its build tags say. Nested modules and testdata are left out.
func readImports(root fs.FS) (map[string]imported, error) {
	packages := map[string]imported{}
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			_, err := fs.Stat(root, path.Join(name, "go.mod"))
			if name != "." && (err == nil || e.Name() == "testdata" || strings.HasPrefix(e.Name(), ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
		if err != nil {
			return err
		}
		p, found := packages[path.Dir(name)]
		if !found {
			p = imported{map[string]bool{}, map[string]bool{}}
			packages[path.Dir(name)] = p
		}
		into := p.code
		if strings.HasSuffix(name, "_test.go") {
			into = p.tests
		}
		for _, spec := range file.Imports {
			imports, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			into[imports] = true
		}
		return nil
	})
	return packages, err
}

// violations lists what the table forbids, in order.
func violations(packages map[string]imported) []string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		r, declared := table[name]
		if !declared {
			found = append(found, name+": not in the table")
			continue
		}
		for _, imports := range slices.Sorted(maps.Keys(packages[name].code)) {
			if short, allowed := r.allows(name, imports, false); !allowed {
				found = append(found, fmt.Sprintf("%s imports %s", name, short))
			}
		}
		for _, imports := range slices.Sorted(maps.Keys(packages[name].tests)) {
			if short, allowed := r.allows(name, imports, true); !allowed {
				found = append(found, fmt.Sprintf("%s imports %s in a test", name, short))
			}
		}
	}
	return found
}

// allows says whether the package of this row may import a path, and gives the path as messages show it.
func (r row) allows(name, imports string, inTest bool) (short string, allowed bool) {
	if ours, ok := strings.CutPrefix(imports, module+"/"); ok {
		leave := strings.Fields(r.ours)
		if inTest {
			leave = append(leave, name) // an external test imports its own package
			leave = append(leave, strings.Fields(r.tests)...)
		}
		return ours, slices.Contains(leave, ours)
	}
	standard := !strings.Contains(strings.Split(imports, "/")[0], ".")
	if standard && !slices.Contains(doors, imports) {
		return imports, true
	}
	leave := strings.Fields(r.foreign)
	if inTest {
		leave = append(leave, strings.Fields(r.tests)...)
	}
	return imports, slices.ContainsFunc(leave, func(prefix string) bool {
		return imports == prefix || strings.HasPrefix(imports, prefix+"/")
	})
}
