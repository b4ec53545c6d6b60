package gitops

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// OfHook is the name, ENGINE/NAMESPACE/NAME, of what deploys a hook. That it says so itself is not enough: it must be in a namespace that
// the deployment has objects in. A hook of none is fault.ErrNotFound.
func OfHook(ctx context.Context, r client.Reader, hook metav1.Object) (string, error) {
	op := "find the Application of hook " + hook.GetName()
	of, _ := tracking(hook, labelInstance)
	if of.Name == "" {
		return "", fault.New(op, fault.ErrNotFound, "it has no annotation or label of Argo CD", "a gate is a hook of an Application, not a Job of its own")
	}
	all := &unstructured.UnstructuredList{}
	all.SetGroupVersionKind(argoKind("ApplicationList"))
	err := r.List(ctx, all, client.InNamespace(of.Namespace), client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector(metav1.ObjectNameField, of.Name)})
	if meta.IsNoMatchError(err) {
		return "", fault.New(op, fault.ErrNotFound, "the cluster has no Argo CD", "")
	}
	if err != nil {
		return "", fault.Wrap(op, kube.ClassOf(err), err, "")
	}
	var names []string
	for i := range all.Items {
		if a := (Application{&all.Items[i]}); a.reaches(hook.GetNamespace()) {
			names = append(names, v1alpha1.EngineArgoCD+"/"+a.Name().String())
		}
	}
	switch len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", fault.New(op, fault.ErrNotFound, fmt.Sprintf("no Application %s deploys into namespace %s", of.Name, hook.GetNamespace()), "")
	}
	return "", fault.New(op, fault.ErrInvalid, "it may be of "+strings.Join(names, " or "), "give the Applications names of their own")
}

// Object reads what a name, ENGINE/NAMESPACE/NAME, stands for. What is not there is fault.ErrNotFound.
func Object(ctx context.Context, r client.Reader, name string) (*unstructured.Unstructured, error) {
	op := "read deployment " + name
	engine, rest, _ := strings.Cut(name, "/")
	namespace, of, found := strings.Cut(rest, "/")
	if engine != v1alpha1.EngineArgoCD || !found {
		return nil, fault.New(op, fault.ErrUnsupported, "it is no Application of Argo CD", "")
	}
	o, err := get(ctx, r, "Application", types.NamespacedName{Namespace: namespace, Name: of})
	return o, fault.Wrap(op, nil, err, "")
}

// reaches reports whether the application has objects in a namespace, or is to.
func (a Application) reaches(namespace string) bool {
	in := func(r any) bool {
		m, _ := r.(map[string]any)
		return text(m, "namespace") == namespace
	}
	return a.Namespace() == namespace || slices.ContainsFunc(a.list("status", "resources"), in) ||
		slices.ContainsFunc(a.list("status", "operationState", "syncResult", "resources"), in)
}

// Reaches reports whether what deploys, an object that Object read, has objects in a namespace, or is to.
func Reaches(o *unstructured.Unstructured, namespace string) bool {
	return Application{o}.reaches(namespace)
}

// Empty reports whether Argo CD has found nothing of the application on the cluster that is as git has it, but for namespaces. It does not
// say which of the others are missing.
func (a Application) Empty() bool {
	return !slices.ContainsFunc(a.list("status", "resources"), func(r any) bool {
		m, _ := r.(map[string]any)
		return text(m, "status") == "Synced" && text(m, "kind") != "Namespace"
	})
}

// Changes are the kinds of objects that are not as git has them.
func (a Application) Changes() []schema.GroupKind {
	var kinds []schema.GroupKind
	for _, r := range a.list("status", "resources") {
		m, _ := r.(map[string]any)
		if kind := (schema.GroupKind{Group: text(m, "group"), Kind: text(m, "kind")}); text(m, "status") == "OutOfSync" && !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// Since is when the last sync that ended well did; zero before the first.
func (a Application) Since() time.Time {
	history := a.list("status", "history")
	if len(history) == 0 {
		return time.Time{}
	}
	last, _ := history[len(history)-1].(map[string]any)
	at, err := time.Parse(time.RFC3339, text(last, "deployedAt"))
	if err != nil {
		return time.Time{}
	}
	return at
}
