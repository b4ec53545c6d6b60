//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// argo is Argo CD on a cluster, and the forge that it deploys from.
type argo struct {
	*cluster
	api      client.Client
	forgeURL string // NAME.git follows
	forgeDir string // with its bare repositories

	mu      sync.Mutex
	private map[string]string // passwords by repository
}

// argoNamespace is where Argo CD is.
const argoNamespace = "argocd"

// argo starts Argo CD on a cluster until the test ends, without Applications of earlier tests, and a forge that it, pods and the test
// reach. It looks at repositories every five seconds and waits for nothing between waves, unless the environment says otherwise:
// ARGOCD_SYNC_WAVE_DELAY=2 is Argo CD's own.
func (c *cluster) argo(t *testing.T, env ...string) *argo {
	t.Helper()
	program(t, "BACKSTAY_TEST_ARGOCD")
	script := func(ctx context.Context, what string) {
		cmd := exec.CommandContext(ctx, "../cluster/argo.sh", what, c.name)
		cmd.Env = append(append(os.Environ(), "ARGOCD_SYNC_WAVE_DELAY=0"), env...)
		if r := finish(t, cmd); r.exit != 0 {
			t.Errorf("argo.sh %s %s: exit %d\n%s%s", what, c.name, r.exit, r.stdout, r.stderr)
		}
	}
	t.Cleanup(func() { script(context.Background(), "down") })
	if script(t.Context(), "up"); t.Failed() {
		t.FailNow()
	}
	c.kubectl(t, "delete", "applicationsets.argoproj.io,applications.argoproj.io", "--all", "--all-namespaces", "--timeout=240s")
	c.kubectl(t, "-n", argoNamespace, "delete", "secrets", "-l", labelRepository)
	c.kubectl(t, "-n", argoNamespace, "patch", "appproject", "default", "--type=merge", "-p", `{"spec":{"syncWindows":null}}`)
	a := &argo{cluster: c, api: c.connect(t).Client, forgeDir: t.TempDir(), private: map[string]string{}}
	a.forgeURL = a.serve(t, a.forge)
	t.Cleanup(func() {
		if t.Failed() {
			a.explain(t)
		}
	})
	return a
}

// explain logs what Argo CD has to say about a failure.
func (a *argo) explain(t *testing.T) {
	said, _ := a.command(context.Background(), filepath.Join(a.dir, "programs", "kubectl"), "-n", argoNamespace, "get", "applications", "-o",
		`jsonpath={range .items[*]}{.metadata.name}{" "}{.status}{"\n"}{end}`).CombinedOutput()
	t.Logf("Applications:\n%s", said)
	log, _ := os.ReadFile(filepath.Join(a.dir, "logs", "argo-controller"))
	t.Logf("Argo CD's controller:\n%s", log[max(0, len(log)-6000):])
}

// cli runs Argo CD's own command, as its administrator: argocd app rollback.
func (a *argo) cli(t *testing.T, args ...string) result {
	t.Helper()
	cmd := a.command(t.Context(), filepath.Join(program(t, "BACKSTAY_TEST_ARGOCD"), "argocd"), args...)
	cmd.Env = append(cmd.Env, a.cliEnv(t)...)
	return finish(t, cmd)
}

// cliEnv is what the command needs to find the server, which asks nobody who they are.
func (a *argo) cliEnv(t *testing.T) []string {
	return []string{
		"HOME=" + t.TempDir(), "ARGOCD_BINARY_NAME=argocd", "ARGOCD_SERVER=" + nodeAddress + ":8080", "ARGOCD_OPTS=--plaintext",
		"ARGOCD_AUTH_TOKEN=unused",
	}
}

// serve serves the cluster from the test until it ends, and gives the URL.
func (c *cluster) serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	address := net.JoinHostPort(nodeAddress, freePort(t))
	l := c.listen(t, address)
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return "http://" + address
}

// forge serves the repositories, to be read and written by everyone but those that are private.
func (a *argo) forge(w http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	a.mu.Lock()
	want := a.private[name]
	a.mu.Unlock()
	if _, password, _ := r.BasicAuth(); password != want && want != "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="forge"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(r.Body) // CGI has no chunks
	if err != nil {
		return // the client went
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	backend := cgi.Handler{
		Path: filepath.Join(gitExecPath(), "git-http-backend"), Dir: a.forgeDir,
		Env: []string{"GIT_PROJECT_ROOT=" + a.forgeDir, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + r.Header.Get("Git-Protocol"), "HOME=" + a.forgeDir},
	}
	backend.ServeHTTP(w, r)
}

// repository is one at the forge, and the test's clone of it.
type repository struct {
	argo *argo
	name string
	url  string // for Argo CD and for pods
	bare string // at the forge
	work string // the clone, with the branch main
}

// newRepository makes one without commits, in the place of an earlier one of its name.
func (a *argo) newRepository(t *testing.T, name string) *repository {
	t.Helper()
	r := &repository{argo: a, name: name, url: a.forgeURL + "/" + name + ".git", bare: filepath.Join(a.forgeDir, name+".git"), work: t.TempDir()}
	r.lose(t)
	a.mu.Lock()
	delete(a.private, name)
	a.mu.Unlock()
	git(t, a.forgeDir, "init", "--quiet", "--bare", "--initial-branch=main", r.bare)
	git(t, r.bare, "config", "http.receivepack", "true")
	git(t, r.work, "init", "--quiet", "--initial-branch=main")
	git(t, r.work, "remote", "add", "origin", r.bare)
	return r
}

// commit writes files, or removes those without text, and pushes a commit of it. It gives the revision.
func (r *repository) commit(t *testing.T, message string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		if text == "" {
			git(t, r.work, "rm", "--quiet", name)
		} else {
			write(t, r.work, name, text)
		}
	}
	git(t, r.work, "add", "--all")
	git(t, r.work, "commit", "--quiet", "-m", message)
	git(t, r.work, "push", "--quiet", "origin", "main")
	return r.head(t)
}

// head is the revision of the clone's last commit.
func (r *repository) head(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(git(t, r.work, "rev-parse", "HEAD"))
}

// lose has the forge lose the repository.
func (r *repository) lose(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(r.bare); err != nil {
		t.Fatal(err)
	}
}

// labelRepository is on Secrets with credentials of a repository.
const labelRepository = "argocd.argoproj.io/secret-type=repository"

// protect has the forge ask for a password from now on. Argo CD is told.
func (r *repository) protect(t *testing.T, password string) {
	t.Helper()
	r.argo.mu.Lock()
	r.argo.private[r.name] = password
	r.argo.mu.Unlock()
	label, value, _ := strings.Cut(labelRepository, "=")
	r.argo.apply(t, argoNamespace, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: repository-%s, labels: {%s: %s}}
stringData: {type: git, url: %q, username: git, password: %q}
`, r.name, label, value, r.url, password))
}

// applicationOptions is how an Application is set up; nothing is one that syncs when asked.
type applicationOptions struct {
	tracking  string // how Argo CD knows objects: annotation (default) or label; of all Applications
	automated bool
	selfHeal  bool // what was changed on the cluster is put right
	prune     bool // what left git leaves the cluster
	namespace string
	project   string
	path      string // in the repository; the root by default
	appset    bool   // an ApplicationSet makes it
	parent    bool   // it is in git, and an Application NAME-parent that heals itself deploys it
}

// application is an Application with a repository.
type application struct {
	*argo
	*repository
	name      string
	namespace string       // where its objects go
	parent    *application // where it has one
}

// newApplication makes an Application of a repository with some files. Its namespace, of the same name where options name none, is not
// there yet. All goes with the test.
func (a *argo) newApplication(t *testing.T, name string, files map[string]string, o applicationOptions) *application {
	t.Helper()
	tracking, namespace, project, path := "annotation", name, "default", "."
	for into, value := range map[*string]string{&tracking: o.tracking, &namespace: o.namespace, &project: o.project, &path: o.path} {
		if value != "" {
			*into = value
		}
	}
	a.kubectl(t, "-n", argoNamespace, "patch", "configmap", "argocd-cm", "--type=merge", "-p",
		fmt.Sprintf(`{"data":{"application.resourceTrackingMethod":%q}}`, tracking))
	if namespace != argoNamespace {
		a.deleteNamespace(t, namespace)
		a.clean(t, "delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
	}
	a.clean(t, "-n", argoNamespace, "delete", "applications.argoproj.io", name, "--ignore-not-found", "--timeout=60s")
	app := &application{argo: a, repository: a.newRepository(t, name), name: name, namespace: namespace}
	app.commit(t, "first", files)

	policy := map[string]any{"syncOptions": []any{"CreateNamespace=true"}}
	if o.automated {
		policy["automated"] = map[string]any{"prune": o.prune, "selfHeal": o.selfHeal}
	}
	manifest := map[string]any{
		"apiVersion": "argoproj.io/v1alpha1", "kind": "Application",
		"metadata": map[string]any{"name": name, "namespace": argoNamespace},
		"spec": map[string]any{
			"project":     project,
			"source":      map[string]any{"repoURL": app.url, "path": path, "targetRevision": "main"},
			"destination": map[string]any{"server": "https://kubernetes.default.svc", "namespace": namespace},
			"syncPolicy":  policy,
		},
	}
	if o.parent {
		app.parent = a.newApplication(t, name+"-parent", map[string]string{"application.yaml": manifestOf(t, manifest)}, applicationOptions{
			tracking: o.tracking, automated: true, selfHeal: true, prune: true, project: project, namespace: argoNamespace,
		})
		return app
	}
	if o.appset {
		manifest = map[string]any{
			"apiVersion": "argoproj.io/v1alpha1", "kind": "ApplicationSet",
			"metadata": manifest["metadata"],
			"spec": map[string]any{
				"generators": []any{map[string]any{"list": map[string]any{"elements": []any{map[string]any{"app": name}}}}},
				"syncPolicy": map[string]any{"preserveResourcesOnDeletion": true},
				"template": map[string]any{
					"metadata": map[string]any{"name": "{{app}}"},
					"spec":     manifest["spec"],
				},
			},
		}
	}
	a.apply(t, argoNamespace, manifestOf(t, manifest))
	a.clean(t, "-n", argoNamespace, "delete", "applicationsets.argoproj.io", name, "--ignore-not-found", "--timeout=60s")
	return app
}

// manifestOf is an object as JSON, which is YAML too.
func manifestOf(t *testing.T, object map[string]any) string {
	t.Helper()
	text, err := json.MarshalIndent(object, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

// standing is how an Application stands.
type standing struct {
	Spec      json.RawMessage
	Operation *operationAsked // under way or about to be
	Status    struct {
		Sync    struct{ Status, Revision string }
		Health  struct{ Status, Message string }
		History []struct {
			ID       int
			Revision string
		}
		Resources      []struct{ Group, Kind, Namespace, Name, Status string }
		Conditions     []struct{ Type, Message string }
		OperationState *operation
	}
}

type operationAsked struct {
	InitiatedBy struct {
		Username  string
		Automated bool
	}
	Sync struct {
		Revision              string
		AutoHealAttemptsCount int
		Resources             []struct{ Kind, Name string }
	}
}

// operation is one sync, begun or ended.
type operation struct {
	Phase, Message string
	StartedAt      time.Time
	FinishedAt     time.Time
	Operation      operationAsked
	SyncResult     struct{ Revision string }
}

func (o operation) final() bool {
	return slices.Contains([]string{"Succeeded", "Failed", "Error"}, o.Phase)
}

func (s standing) String() string {
	var out []string
	for _, r := range s.Status.Resources {
		if r.Status != "Synced" {
			out = append(out, strings.TrimSpace(r.Kind+"/"+r.Name+" "+r.Status))
		}
	}
	text := fmt.Sprintf("%s at %.7s, %s %s, %v, conditions %v, asked %+v", s.Status.Sync.Status, s.Status.Sync.Revision, s.Status.Health.Status,
		s.Status.Health.Message, out, s.Status.Conditions, s.Operation)
	if o := s.Status.OperationState; o != nil {
		text += fmt.Sprintf(", operation on %.7s %s: %s", o.SyncResult.Revision, o.Phase, o.Message)
	}
	return text
}

// stands reads how the Application stands. One that is not there, or that cannot be read just now, stands nowhere: the zero value.
func (a *application) stands(t *testing.T) (s standing) {
	t.Helper()
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "Application"})
	if err := a.api.Get(t.Context(), client.ObjectKey{Namespace: argoNamespace, Name: a.name}, u); err != nil {
		s.Status.Health.Message = err.Error()
		return s
	}
	text, err := u.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return s
}

// patience is how long an Application may take for what takes seconds.
const patience = 2 * time.Minute

// well waits until the Application is Synced and Healthy at a revision, and does nothing.
func (a *application) well(t *testing.T, revision string) {
	t.Helper()
	a.wait(t, a.name+" is well at "+revision, patience, func() (bool, string) {
		s := a.stands(t)
		return s.Operation == nil && (s.Status.OperationState == nil || s.Status.OperationState.final()) &&
			s.Status.Sync.Revision == revision && s.Status.Sync.Status == "Synced" && s.Status.Health.Status == "Healthy", s.String()
	})
}

// calm fails unless the Application is well at a revision, and stays so without an operation while Argo CD looks at it again.
func (a *application) calm(t *testing.T, revision string) {
	t.Helper()
	a.well(t, revision)
	operations := len(a.stands(t).Status.History)
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if s := a.stands(t); s.Status.Sync.Status != "Synced" || s.Status.Health.Status != "Healthy" || len(s.Status.History) != operations {
			t.Fatalf("%s does not stay well: %s", a.name, s)
		}
	}
}

// seen waits until Argo CD has compared the cluster with a revision.
func (a *application) seen(t *testing.T, revision string) {
	t.Helper()
	a.wait(t, a.name+" is compared with "+revision, patience, func() (bool, string) {
		s := a.stands(t)
		return s.Status.Sync.Revision == revision, s.String()
	})
}

// ended waits until an operation on a revision has ended, well or not.
func (a *application) ended(t *testing.T, revision string) (o operation) {
	t.Helper()
	a.wait(t, a.name+" is through with "+revision, 2*patience, func() (bool, string) {
		s := a.stands(t)
		if s.Operation != nil || s.Status.OperationState == nil {
			return false, s.String()
		}
		o = *s.Status.OperationState
		return o.final() && (o.SyncResult.Revision == revision || o.Operation.Sync.Revision == revision), s.String()
	})
	return o
}

// sync asks for a sync to a revision, with all hooks, as a person does; ended waits for it. An operation that is under way is waited for.
func (a *application) sync(t *testing.T, revision string) {
	t.Helper()
	a.operate(t, map[string]any{"revision": revision, "prune": true, "syncOptions": []any{"CreateNamespace=true"}})
}

// operate asks for a sync. What is left of an earlier one is taken away with the same request, as Argo CD's server does; else it would be
// read as part of the new one.
func (a *application) operate(t *testing.T, sync map[string]any) {
	t.Helper()
	a.wait(t, a.name+" is idle", 2*patience, func() (bool, string) {
		s := a.stands(t)
		return s.Spec != nil && s.Operation == nil && (s.Status.OperationState == nil || s.Status.OperationState.final()), s.String()
	})
	a.patch(t, manifestOf(t, map[string]any{
		"operation": map[string]any{"initiatedBy": map[string]any{"username": "ada"}, "sync": sync},
		"status":    map[string]any{"operationState": nil},
	}))
}

// refresh has Argo CD look at the repository now, as a webhook would.
func (a *application) refresh(t *testing.T) {
	t.Helper()
	a.patch(t, `{"metadata":{"annotations":{"argocd.argoproj.io/refresh":"normal"}}}`)
}

// patch changes the Application.
func (a *application) patch(t *testing.T, merge string) {
	t.Helper()
	a.kubectl(t, "-n", argoNamespace, "patch", "applications.argoproj.io", a.name, "--type=merge", "-p", merge)
}
