package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// server is a git server that lets in who has the right password.
type server struct {
	password string
	asked    []Repository
}

type servedRepository struct {
	server *server
	r      Repository
}

func (s *server) repository(r Repository) (RepositorySource, error) {
	if !isGit(r.URL) {
		return nil, errors.New("it is no repository")
	}
	return servedRepository{s, r}, nil
}

func (s servedRepository) PartName() string {
	return "git/" + strings.TrimSuffix(normal(s.r.URL)[strings.Index(normal(s.r.URL), "://")+3:], ".git") + ".git"
}

func (s servedRepository) Subject() point.Subject { return point.Subject{} }

func (s servedRepository) Capture(ctx context.Context, to point.Sink) error {
	s.server.asked = append(s.server.asked, s.r)
	w, err := to.Part(ctx, s.PartName(), point.KindGit)
	if err != nil {
		return err
	}
	if s.r.Password.Reveal() != s.server.password {
		return w.Fail(ctx, fault.New("fetch", fault.ErrDenied, "the server does not let us in", ""))
	}
	if _, err := w.Put(ctx, point.Entry{Name: "HEAD"}, strings.NewReader("ref: refs/heads/main"), point.Text); err != nil {
		return err
	}
	return w.Store(ctx, point.Part{Revision: newRevision})
}

func (l *lab) argoSecret(name, kind string, data map[string]string) {
	l.Helper()
	m := l.named(name)
	m.Labels = map[string]string{labelSecretType: kind}
	l.create(&corev1.Secret{ObjectMeta: m, StringData: data})
}

func TestTheRepositoryIsPartOfThePoint(t *testing.T) {
	l := newLab(t)
	l.argo()
	git := &server{password: "right"}
	l.repositories = git.repository
	l.create(l.object(fmt.Sprintf(`{apiVersion: argoproj.io/v1alpha1, kind: AppProject, metadata: {name: default, namespace: %s}}`, l.system)))
	l.argoSecret("shop", "repository", map[string]string{"url": "https://Git.Example/team/shop", "username": "u", "password": "right", "insecure": "true"})
	l.argoSecret("others", "repository", map[string]string{"url": "https://git.example/team/other", "project": "others", "password": "right"})
	l.argoSecret("team", "repo-creds", map[string]string{"url": "https://git.example/team", "password": "right"})
	l.argoSecret("host", "repo-creds", map[string]string{"url": "https://git.example", "password": "wrong"})
	l.argoSecret("charts", "repository", map[string]string{"url": "https://git.example/charts", "type": "helm"})
	l.argoSecret("certified", "repository", map[string]string{"url": "https://git.example/team/certified", "tlsClientCertData": "wrong-secret"})
	l.create(&corev1.ConfigMap{ObjectMeta: l.named("argocd-tls-certs-cm"), Data: map[string]string{"git.example": "PEM"}})
	live := "history: [{revision: " + oldRevision + "}]"
	for _, test := range []struct {
		name, source string
		phase        v1alpha1.Phase
		part         string
		state        point.State
		asked        string // USERNAME:PASSWORD
	}{
		{"own", `{repoURL: "https://git.example/team/shop.git", path: a}`, v1alpha1.PhaseComplete, "git/git.example/team/shop.git", point.Stored, "u:right"},
		{"lent", `{repoURL: "https://git.example/team/lent", path: a}`, v1alpha1.PhaseComplete, "git/git.example/team/lent.git", point.Stored, ":right"},
		{"foreign", `{repoURL: "https://git.example/team/other", path: a}`, v1alpha1.PhaseComplete, "git/git.example/team/other.git", point.Stored, ":right"},
		{"locked", `{repoURL: "https://git.example/elsewhere", path: a}`, v1alpha1.PhaseIncomplete, "git/git.example/elsewhere.git", point.Failed, ":wrong"},
		{"neighbour", `{repoURL: "https://git.example.net/team/x", path: a}`, v1alpha1.PhaseIncomplete, "git/git.example.net/team/x.git", point.Failed, ":"},
		{"certified", `{repoURL: "https://git.example/team/certified", path: a}`, v1alpha1.PhaseIncomplete, "git/git.example/team/certified.git", point.Failed, ""},
		{"chart", `{repoURL: "https://charts.example", chart: web}`, v1alpha1.PhaseComplete, "", "", ""},
		{"helm", `{repoURL: "https://git.example/charts", path: a}`, v1alpha1.PhaseComplete, "", "", ""},
		{"oci", `{repoURL: "oci://registry.example/shop", path: a}`, v1alpha1.PhaseComplete, "", "", ""},
		{"file", `{repoURL: "file:///etc", path: a}`, v1alpha1.PhaseComplete, "", "", ""},
		{"path", `{repoURL: "/etc", path: a}`, v1alpha1.PhaseComplete, "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			git.asked = nil
			name := "git-" + test.name
			l.deploys(name, l.application(), test.source, live)
			s := l.backedUp(name, "", func(b *v1alpha1.Backup) { b.Spec.Application = v1alpha1.Applications{ArgoCD: []string{name}} })
			p := l.recorded(s)
			if s.Phase != test.phase || len(p.Deployment.Sources) != 1 || p.Deployment.Sources[0].Part != test.part {
				t.Fatalf("%s, %q: %+v", s.Phase, s.Problems, p.Deployment)
			}
			for _, part := range p.Parts {
				if part.Kind == point.KindGit && (part.Name != test.part || part.State != test.state) {
					t.Errorf("part %+v", part)
				}
			}
			asked := ""
			if len(git.asked) > 0 {
				asked = git.asked[0].Username + ":" + git.asked[0].Password.Reveal()
			}
			if asked != test.asked || len(git.asked) > 1 {
				t.Errorf("asked %q, want %q", asked, test.asked)
			}
			if test.name == "own" && (git.asked[0].CA != "PEM" || !git.asked[0].Insecure) {
				t.Errorf("asked %+v", git.asked[0])
			}
			if text := fmt.Sprintf("%+v %+v", s, p); strings.Contains(text, "right") || strings.Contains(text, "wrong-") {
				t.Errorf("a secret shows: %s", text)
			}
		})
	}
	several := `{repoURL: "https://git.example/team/shop", path: a}, {repoURL: "https://git.example/team/shop.git", path: b}, {repoURL: "https://charts.example", chart: web}`
	l.create(l.object(fmt.Sprintf(`{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {name: several, namespace: %s}, spec: {sources: [%s],
 destination: {namespace: %s}}, status: {history: [{revisions: [%s, %s, v1.2.3]}]}}`, l.system, several, l.application(), oldRevision, oldRevision)))
	git.asked = nil
	p := l.recorded(l.backedUp("several", "", func(b *v1alpha1.Backup) { b.Spec.Application = v1alpha1.Applications{ArgoCD: []string{"several"}} }))
	if name, revisions := p.DeployedBy(); len(git.asked) != 1 || len(p.Deployment.Sources) != 3 || p.Deployment.Sources[1].Part != p.Deployment.Sources[0].Part ||
		strings.Join(revisions, " ") != oldRevision+" "+oldRevision+" v1.2.3" || name == "" {
		t.Errorf("of several sources: asked %d, %+v, %v", len(git.asked), p.Deployment, p.Revisions)
	}
}

func TestTenantsGetNoRepositoryThatOthersOpen(t *testing.T) {
	b := &backup{Worker: New(Options{System: "system", Repository: (&server{}).repository}), object: &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "tenant"}}}
	all, err := b.origins(t.Context(), &point.Deployment{Name: "argocd/argocd/shop", Sources: []point.DeployedSource{{URL: "https://git.example/shop"}}})
	if len(all) > 0 || err != nil {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestGitHubApps(t *testing.T) {
	secret := &corev1.Secret{Data: map[string][]byte{
		"githubAppID": []byte("7"), "githubAppInstallationID": []byte("8"), "githubAppPrivateKey": []byte("key"), "githubAppEnterpriseBaseUrl": []byte("https://ghe.example/api/v3/"),
	}}
	var r Repository
	if err := r.open(secret); err != nil || r.App == nil || *r.App != (GitHubApp{7, 8, "key", "https://ghe.example"}) {
		t.Errorf("%+v, %v", r.App, err)
	}
	secret.Data["githubAppID"] = []byte("seven")
	if err := r.open(secret); !errors.Is(err, fault.ErrInvalid) || strings.Contains(err.Error(), "seven") {
		t.Errorf("an id that is no number: %v", err)
	}
}

func FuzzAddresses(f *testing.F) {
	for _, address := range []string{"https://u:p@git.example/a.git", "git@git.example:a/b.git", "ssh://git@git.example:22/a", "https://[::1", "%zz", "a@b:", "oci://x/y"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if n := normal(address); n != "" && normal(n) != n && !strings.HasSuffix(n, ".git") && !strings.HasSuffix(n, "/") {
			t.Errorf("%q: %q, again %q", address, n, normal(n))
		}
		_ = withoutCredentials(address)
		_ = isGit(address)
	})
}
