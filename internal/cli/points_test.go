package cli

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/point"
)

const (
	oldCommit = "a111111111111111111111111111111111111111"
	newCommit = "a222222222222222222222222222222222222222"
)

// addDeployed makes a point of an application that was at a revision.
func (f *fixture) addDeployed(t *testing.T, application, live, next string) string {
	t.Helper()
	draft, err := f.store.Begin(t.Context(), point.Subject{Kind: point.SubjectApplication, Name: "here/" + application}, "nightly")
	if err != nil {
		t.Fatal(err)
	}
	w, err := draft.Part(t.Context(), "kubernetes/"+application, point.KindObjects)
	if err != nil {
		t.Fatal(err)
	}
	d := point.Deployment{
		Name: "argocd/argocd/" + application, Images: []string{"r.example/web@sha256:11"}, Manifests: "5af5",
		Sources: []point.DeployedSource{{URL: "https://git.example/a.git", Path: "deploy", From: live, To: next, Part: "git/git.example/a.git"}},
	}
	draft.(point.Revised).Deployed(&d, d.Revisions()) //nolint:forcetypeassert // the store in memory can be told
	_, err = w.Put(t.Context(), point.Entry{Name: "f", Time: epoch}, strings.NewReader("text"), point.Text)
	if err := errors.Join(err, w.Store(t.Context(), point.Part{})); err != nil {
		t.Fatal(err)
	}
	receipt, err := draft.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return receipt.Point.ID
}

func TestPointsOfARevision(t *testing.T) {
	f := newFixture(t)
	f.env[envLocation] = "/vault"
	f.add(t, "shop", nil) // a directory of that name
	first := f.addDeployed(t, "shop", oldCommit, newCommit)
	second := f.addDeployed(t, "shop", newCommit, "")
	other := f.addDeployed(t, "other", oldCommit, "")
	for _, test := range []struct {
		args string
		want []string
	}{
		{"--app shop", []string{second, first}},
		{"--app shop --revision " + oldCommit, []string{first}},
		{"--app shop --revision a111111", []string{first}},
		{"--app shop --revision a11111", nil},
		{"--revision a111111", []string{other, first}},
		{"--app shop --policy weekly", nil},
		{"--app none", nil},
	} {
		if exit := f.run(t.Context(), append([]string{"points", "--json"}, strings.Fields(test.args)...)...); exit != 0 {
			t.Fatalf("%s: exit %d: %s", test.args, exit, &f.stderr)
		}
		var document pointsDocument
		if err := json.Unmarshal(f.stdout.Bytes(), &document); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range document.Points {
			got = append(got, p.ID)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.args, got, test.want)
		}
	}
	if f.run(t.Context(), "points", "--app", "shop"); !strings.Contains(f.stdout.String(), "REVISION") || !strings.Contains(f.stdout.String(), oldCommit[:12]+"\n") {
		t.Errorf("points: %s", &f.stdout)
	}
	f.run(t.Context(), "show", first)
	for _, want := range []string{
		"deployed by argocd/argocd/shop\n", "from     https://git.example/a.git deploy, in git/git.example/a.git\n", "revision " + oldCommit + "\n",
		"next     " + newCommit + "\n", "image    r.example/web@sha256:11\n", "applied  sha256:5af5\n",
	} {
		if !strings.Contains(f.stdout.String(), want) {
			t.Errorf("show lacks %q: %s", want, &f.stdout)
		}
	}
	if exit := f.run(t.Context(), "points", "--app", "shop", "--subject", "here/shop"); exit != 2 {
		t.Errorf("an application and a subject: exit %d", exit)
	}
}

func TestASourceIsNarrowedToADeployment(t *testing.T) {
	for _, test := range []struct {
		globs []string
		want  string
	}{
		{[]string{"*"}, "shop"},
		{[]string{"argocd/sh*", "other"}, "argocd/shop"},
		{[]string{"other"}, ""},
	} {
		one, is := deploymentNamed(v1alpha1.Applications{ArgoCD: test.globs}, "shop")
		if got := strings.Join(one.ArgoCD, ","); got != test.want || is != (test.want != "") {
			t.Errorf("%q: %q, %v", test.globs, got, is)
		}
	}
	if _, is := deploymentNamed(v1alpha1.Applications{Namespaces: []string{"shop"}}, "shop"); is {
		t.Error("namespaces are taken for deployments")
	}
}
