package kube_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

// connect reaches a real API server.
func connect(t *testing.T) *kube.Cluster {
	t.Helper()
	return with(t, kubetest.Start(t))
}

func with(t *testing.T, config *rest.Config) *kube.Cluster {
	t.Helper()
	c, err := kube.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// create makes the objects of YAML documents, in a namespace where they are of one.
func create(t *testing.T, c *kube.Cluster, namespace, documents string) []*unstructured.Unstructured {
	t.Helper()
	var made []*unstructured.Unstructured
	for _, document := range strings.Split(strings.ReplaceAll(documents, "\t", "  "), "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &u.Object); err != nil {
			t.Fatal(err)
		}
		u.SetNamespace(namespace)
		if err := c.Client.Create(t.Context(), u); err != nil {
			t.Fatalf("create %s %s: %v", u.GetKind(), u.GetName(), err)
		}
		made = append(made, u)
	}
	return made
}

// moment is the present state of a cluster.
func moment(t *testing.T, c *kube.Cluster) kube.Moment {
	t.Helper()
	version, at, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return kube.Moment{ResourceVersion: version, At: at, Mark: t.Name()}
}

// whole is the application that a namespace is.
func whole(namespace string) kube.Application {
	return kube.Application{Name: namespace, Namespaces: []string{namespace}}
}

// captured is what became of an application's objects.
type captured struct {
	source  *kube.Objects
	parts   map[string]point.Part
	objects map[string][]unstructured.Unstructured // by part
	state   point.State
}

// capture makes a point of an application's objects and reads it back.
func capture(t *testing.T, c *kube.Cluster, a kube.Application, at kube.Moment) captured {
	t.Helper()
	return captureOf(t, kube.NewObjects(c, a, point.Subject{Kind: point.SubjectApplication, Name: "test/" + a.Name}, at))
}

func captureOf(t *testing.T, source *kube.Objects) captured {
	t.Helper()
	store := memory.New(time.Now)
	got := captured{source: source, parts: map[string]point.Part{}, objects: map[string][]unstructured.Unstructured{}}
	receipt, err := protect.Backup(t.Context(), store, source, "policy")
	if receipt == nil {
		t.Fatal(err)
	}
	got.state = receipt.Point.State
	for _, p := range receipt.Point.Parts {
		got.parts[p.Name] = p
		if p.State == point.Stored {
			got.objects[p.Name] = read(t, store, receipt.Point.ID, p.Name)
		}
	}
	return got
}

func read(t *testing.T, store *memory.Store, id, part string) []unstructured.Unstructured {
	t.Helper()
	_, tree, err := store.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := kube.ReadObjects(t.Context(), below{tree, part})
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// below is a reader rooted at a part.
type below struct {
	point.Reader
	part string
}

func (b below) List(ctx context.Context, p string) ([]point.Entry, error) {
	return b.Reader.List(ctx, b.part+"/"+p)
}

// names lists objects as KIND/NAME, sorted.
func names(objects []unstructured.Unstructured) []string {
	var found []string
	for _, u := range objects {
		found = append(found, strings.ToLower(u.GetKind())+"/"+u.GetName())
	}
	slices.Sort(found)
	return found
}

// find is the one of objects that is called so.
func find(t *testing.T, objects []unstructured.Unstructured, name string) unstructured.Unstructured {
	t.Helper()
	for _, u := range objects {
		if strings.ToLower(u.GetKind())+"/"+u.GetName() == name {
			return u
		}
	}
	t.Fatalf("%s is not among %q", name, names(objects))
	return unstructured.Unstructured{}
}

func update(t *testing.T, c *kube.Cluster, u *unstructured.Unstructured, value any, fields ...string) {
	t.Helper()
	if err := c.Client.Get(context.Background(), client.ObjectKeyFromObject(u), u); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedField(u.Object, value, fields...); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Update(context.Background(), u); err != nil {
		t.Fatal(err)
	}
}

func (b below) Open(ctx context.Context, p string) (io.ReadSeekCloser, error) {
	return b.Reader.Open(ctx, b.part+"/"+p)
}
