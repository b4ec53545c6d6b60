// Package gitops speaks to what deploys applications out of git: Argo CD and Flux. It reads which revision goes in the place of which,
// and holds syncs off while data and configuration go back together.
package gitops

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Group and versions of Argo CD's kinds.
const argoGroup = "argoproj.io"

// Annotations and labels by which Argo CD knows what is an application's.
const (
	annotationTracking = "argocd.argoproj.io/tracking-id"
	labelInstance      = "app.kubernetes.io/instance"
	annotationRefresh  = "argocd.argoproj.io/refresh" // Argo CD takes it away when it has
)

func argoKind(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: argoGroup, Version: "v1alpha1", Kind: kind}
}

// Application is an Application of Argo CD, as it was read. Fields that have another type than they should are as if they were not there.
type Application struct{ object *unstructured.Unstructured }

// Source is where an application's configuration comes from.
type Source struct {
	URL      string // of the repository
	Path     string // in it
	Chart    string // of Helm, from a registry; then the revision is its version
	Revision string // that is followed: a branch, a tag, a commit
}

// Operation is a sync that is asked for, or under way.
type Operation struct {
	Revisions []string  // that are deployed, of each source; empty until Argo CD has resolved what a user did not say
	Started   time.Time // zero until it has
	Phase     string    // Running, Succeeded, Failed, Error; empty until it has started
	Message   string    // in Argo CD's own words
	Automated bool
	User      string // who asked, where somebody did
	// Restore is the one on whose behalf Backstay asked for it; empty where it did not.
	Restore string
	// Resources are the only ones that are synced, where not all are. Such a sync, and one that applies, runs no hooks.
	Resources int
	Applies   bool
}

// Hooks reports whether the operation runs hooks: a gate among them.
func (o Operation) Hooks() bool { return o.Resources == 0 && !o.Applies }

// Ended reports whether nothing more happens in it.
func (o Operation) Ended() bool {
	return slices.Contains([]string{"Succeeded", "Failed", "Error"}, o.Phase)
}

// Failed reports whether it has ended otherwise than well.
func (o Operation) Failed() bool { return o.Ended() && o.Phase != "Succeeded" }

// Name is the namespace and name of the Application.
func (a Application) Name() types.NamespacedName {
	return types.NamespacedName{Namespace: a.object.GetNamespace(), Name: a.object.GetName()}
}

// UID tells it from an earlier one of its name.
func (a Application) UID() types.UID { return a.object.GetUID() }

// Namespace is where its objects go that name none.
func (a Application) Namespace() string { return a.text("spec", "destination", "namespace") }

// Project is its AppProject, of Argo CD's namespace.
func (a Application) Project() string { return cmp.Or(a.text("spec", "project"), "default") }

// Sources are where its configuration comes from, in its order.
func (a Application) Sources() []Source {
	all := a.list("spec", "sources")
	if len(all) == 0 {
		if one, is := a.field("spec", "source").(map[string]any); is {
			all = []any{one}
		}
	}
	var sources []Source
	for _, s := range all {
		m, _ := s.(map[string]any)
		sources = append(sources, Source{URL: text(m, "repoURL"), Path: text(m, "path"), Chart: text(m, "chart"), Revision: text(m, "targetRevision")})
	}
	return sources
}

// Deployed are the revisions that are live, of each source: those of the last sync that ended well. None before the first.
func (a Application) Deployed() []string {
	history := a.list("status", "history")
	if len(history) == 0 { // which Argo CD can be told not to keep
		if o := a.Operation(); o != nil && o.Phase == "Succeeded" && o.Resources == 0 {
			return o.Revisions
		}
		return nil
	}
	last, _ := history[len(history)-1].(map[string]any)
	return revisions(last)
}

// Compared are the revisions that the cluster was last compared with.
func (a Application) Compared() []string {
	m, _ := a.field("status", "sync").(map[string]any)
	return revisions(m)
}

// Operation is the sync that is asked for or under way; the last one where there is none, nil before the first.
func (a Application) Operation() *Operation {
	state, _ := a.field("status", "operationState").(map[string]any)
	waits := a.waits()
	if !waits && state == nil {
		return nil
	}
	of := a.current()
	o := &Operation{
		Automated: field(of, "initiatedBy", "automated") == true, User: text(of, "initiatedBy", "username"),
		Applies: field(of, "sync", "syncStrategy", "apply") != nil,
	}
	o.Restore = restoreOf(of)
	only, _ := field(of, "sync", "resources").([]any)
	o.Resources = len(only)
	m, _ := field(of, "sync").(map[string]any)
	o.Revisions = revisions(m)
	if waits {
		return o
	}
	if result, is := field(state, "syncResult").(map[string]any); is && len(o.Revisions) == 0 {
		o.Revisions = revisions(result)
	}
	o.Phase = text(state, "phase")
	o.Message, _, _ = strings.Cut(text(state, "message"), explains)
	o.Started, _ = time.Parse(time.RFC3339, text(state, "startedAt")) // zero for what is no time
	return o
}

// Automated reports whether Argo CD syncs by itself, and whether it puts right what was changed on the cluster.
func (a Application) Automated() (automated, heals bool) {
	m, is := a.field("spec", "syncPolicy", "automated").(map[string]any)
	if !is || m["enabled"] == false {
		return false, false
	}
	return true, m["selfHeal"] == true
}

// Well reports whether it is Synced and Healthy, and if not, how it stands.
func (a Application) Well() (well bool, stands string) {
	sync, health := a.text("status", "sync", "status"), a.text("status", "health", "status")
	stands = sync + ", " + health
	if message := a.text("status", "health", "message"); message != "" {
		stands += ": " + message
	}
	return sync == "Synced" && health == "Healthy", stands
}

// Owner is what made the Application and would take changes of it back: an ApplicationSet, or the Application that has it in git. Empty for
// none.
func (a Application) Owner() (kind, name string) {
	for _, o := range a.object.GetOwnerReferences() {
		if strings.HasPrefix(o.APIVersion, argoGroup+"/") && o.Kind == "ApplicationSet" {
			return o.Kind, o.Name
		}
	}
	if parent := ApplicationOf(a.object); parent != "" && parent != a.object.GetName() {
		return "Application", parent
	}
	return "", ""
}

// ApplicationOf is the name of the Application that an object is of, as Argo CD tracks it; empty for none. An annotation that names another
// object is a copy, and means nothing.
func ApplicationOf(o metav1.Object) string {
	name, _ := tracking(o, labelInstance)
	return name.Name
}

// tracking is what Argo CD wrote on an object: the Application that it is of, and whether an annotation says so, which names the object,
// or a label, which others write too. The namespace is empty for an Application in Argo CD's own.
func tracking(o metav1.Object, label string) (of types.NamespacedName, sure bool) {
	id := o.GetAnnotations()[annotationTracking]
	if id == "" {
		return qualified(o.GetLabels()[label]), false
	}
	name, object, found := strings.Cut(id, ":")
	if !found {
		return of, false
	}
	_, object, _ = strings.Cut(object, ":")
	namespace, called, is := strings.Cut(object, "/")
	// The namespace of an object of the cluster is that of its Application's destination.
	if !is || called != o.GetName() || namespace != o.GetNamespace() && o.GetNamespace() != "" {
		return of, false
	}
	return qualified(name), true
}

// qualified reads NAME, or NAMESPACE_NAME, of Applications in any namespace.
func qualified(name string) types.NamespacedName {
	if namespace, rest, is := strings.Cut(name, "_"); is {
		return types.NamespacedName{Namespace: namespace, Name: rest}
	}
	return types.NamespacedName{Name: name}
}

// revisions are the one, or those of several sources.
func revisions(m map[string]any) []string {
	var all []string
	if list, is := m["revisions"].([]any); is {
		for _, r := range list {
			if s, is := r.(string); is && s != "" {
				all = append(all, s)
			}
		}
	}
	if one := text(m, "revision"); len(all) == 0 && one != "" {
		all = []string{one}
	}
	return all
}

func (a Application) field(fields ...string) any   { return field(a.object.Object, fields...) }
func (a Application) text(fields ...string) string { return text(a.object.Object, fields...) }
func (a Application) list(fields ...string) []any {
	all, _ := a.field(fields...).([]any)
	return all
}

// field reads what is below fields, nil for nothing.
func field(object map[string]any, fields ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(object, fields...) // what has another type than it should is as if it were not there
	return v
}

func text(object map[string]any, fields ...string) string {
	s, _ := field(object, fields...).(string)
	return s
}
