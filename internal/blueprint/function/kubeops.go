package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	yamlreader "k8s.io/apimachinery/pkg/util/yaml"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// mostObjects is how many objects one phase creates.
const mostObjects = 100

// kubeOpsFunction is KubeOps. Each of its operations can be done again: what a phase created has its mark.
func (o Options) kubeOpsFunction() blueprint.Function {
	return blueprint.Function{
		Name: "KubeOps", Interrupted: blueprint.Attaches, Run: o.kubeOps,
		Required: []string{"operation"}, Optional: []string{"spec", "namespace", "objectReference"},
	}
}

// kubeOps creates, patches or deletes objects. Its output names the last of them.
func (o Options) kubeOps(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	operation, spec, namespace := a.text("operation"), a.text("spec"), a.textOr("namespace", metav1.NamespaceDefault)
	var ref blueprint.ObjectReference
	if err := arguments(c.Args).into("objectReference", &ref); err != nil {
		return nil, arguments(c.Args).wrong("objectReference", "a reference")
	}
	if a.err != nil {
		return nil, a.err
	}
	if spec == "" && (operation == "create" || operation == "patch") {
		return nil, fault.New("argument spec", fault.ErrInvalid, "it is needed to "+operation, "")
	}
	switch operation {
	case "create":
		return o.createAll(ctx, c, spec, namespace)
	case "patch":
		return o.patch(ctx, ref, namespace, spec)
	case "delete":
		return o.delete(ctx, ref, namespace)
	}
	return nil, fault.New("argument operation", fault.ErrInvalid, fmt.Sprintf("%.64q is not create, patch or delete", operation), "")
}

// createAll creates the objects of YAML documents. One that names no namespace, and is of a kind that has them, is created in namespace.
func (o Options) createAll(ctx context.Context, c blueprint.Call, spec, namespace string) (map[string]any, error) {
	const op = "create objects"
	documents := yamlreader.NewYAMLOrJSONDecoder(strings.NewReader(spec), len(spec)+1)
	var output map[string]any
	for count := 0; ; {
		u := &unstructured.Unstructured{}
		err := documents.Decode(&u.Object)
		switch {
		case errors.Is(err, io.EOF) && output == nil:
			return nil, fault.New("argument spec", fault.ErrInvalid, "it holds no object", "")
		case errors.Is(err, io.EOF):
			return output, nil
		case err != nil:
			return nil, fault.Wrap("argument spec", fault.ErrInvalid, err, "")
		case len(u.Object) == 0:
			continue
		}
		if count++; count > mostObjects {
			return nil, fault.New("argument spec", fault.ErrInvalid, fmt.Sprintf("it holds more than %d objects", mostObjects), "")
		}
		if output, err = o.create(ctx, c, u, namespace); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
	}
}

func (o Options) create(ctx context.Context, c blueprint.Call, u *unstructured.Unstructured, namespace string) (map[string]any, error) {
	if u.GetKind() == "" || u.GetAPIVersion() == "" || u.GetName() == "" && u.GetGenerateName() == "" {
		return nil, fault.New("argument spec", fault.ErrInvalid, "an object lacks apiVersion, kind or name", "")
	}
	mapping, err := o.mapping(u.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	switch {
	case mapping.Scope.Name() != meta.RESTScopeNameNamespace:
		u.SetNamespace("")
	case u.GetNamespace() == "":
		u.SetNamespace(namespace)
	}
	if u.GetName() == "" { // a name that the next run finds
		u.SetName(u.GetGenerateName() + c.ID)
	}
	if err := o.make(ctx, c, u); err != nil {
		return nil, fault.Wrap(mapping.Resource.Resource+" "+u.GetName(), nil, err, "")
	}
	return map[string]any{
		"apiVersion": mapping.Resource.Version, "group": mapping.Resource.Group, "resource": mapping.Resource.Resource,
		"kind": u.GetKind(), "name": u.GetName(), "namespace": u.GetNamespace(),
	}, nil
}

// mapping is how the API server calls a kind.
func (o Options) mapping(kind schema.GroupVersionKind) (*meta.RESTMapping, error) {
	mapping, err := o.Cluster.Client.RESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		return nil, fault.Wrap("", fault.ErrUnsupported, err, "the cluster lacks this kind")
	}
	return mapping, fault.Wrap("find kind "+kind.Kind, kube.ClassOf(err), err, "")
}

// object is what a reference names, not read yet: by resource, or by kind. Where it says no namespace it is in the one given.
func (o Options) object(ref blueprint.ObjectReference, namespace string) (*unstructured.Unstructured, error) {
	const op = "argument objectReference"
	if ref.Name == "" || ref.Resource == "" && ref.Kind == "" {
		return nil, fault.New(op, fault.ErrInvalid, "it lacks a name, or both resource and kind", "")
	}
	group, version := ref.Group, ref.APIVersion
	if before, after, both := strings.Cut(version, "/"); both {
		group, version = before, after
	}
	kind := schema.GroupVersionKind{Group: group, Version: version, Kind: ref.Kind}
	if ref.Resource != "" {
		var err error
		resource := schema.GroupVersionResource{Group: group, Version: version, Resource: ref.Resource}
		if kind, err = o.Cluster.Client.RESTMapper().KindFor(resource); meta.IsNoMatchError(err) {
			return nil, fault.Wrap(op, fault.ErrUnsupported, err, "the cluster lacks this kind")
		} else if err != nil {
			return nil, fault.Wrap(op, kube.ClassOf(err), err, "")
		}
	}
	mapping, err := o.mapping(kind)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(mapping.GroupVersionKind)
	u.SetName(ref.Name)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if u.SetNamespace(ref.Namespace); ref.Namespace == "" {
			u.SetNamespace(namespace)
		}
	}
	return u, nil
}

// named is the output of what was done with an object that a reference names.
func named(ref blueprint.ObjectReference) map[string]any {
	return map[string]any{
		"apiVersion": ref.APIVersion, "group": ref.Group, "resource": ref.Resource,
		"kind": ref.Kind, "name": ref.Name, "namespace": ref.Namespace,
	}
}

// patch merges YAML into an object, as kubectl does: kinds of others have no strategy for it.
func (o Options) patch(ctx context.Context, ref blueprint.ObjectReference, namespace, spec string) (map[string]any, error) {
	u, err := o.object(ref, namespace)
	if err != nil {
		return nil, err
	}
	patch, err := yaml.YAMLToJSON([]byte(spec))
	if err != nil || !json.Valid(patch) {
		return nil, arguments{}.wrong("spec", "YAML")
	}
	kind := types.MergePatchType
	if clientscheme.Scheme.Recognizes(u.GroupVersionKind()) {
		kind = types.StrategicMergePatchType
	}
	err = o.call(ctx, func(ctx context.Context) error { return o.Cluster.Client.Patch(ctx, u, client.RawPatch(kind, patch)) })
	return named(ref), fault.Wrap("patch "+ref.Name, nil, err, "")
}

// delete deletes an object and waits until it is gone. One that is gone already is no error: an interrupted run may have deleted it.
func (o Options) delete(ctx context.Context, ref blueprint.ObjectReference, namespace string) (map[string]any, error) {
	u, err := o.object(ref, namespace)
	if err != nil {
		return nil, err
	}
	op := "delete " + ref.Name
	err = o.call(ctx, func(ctx context.Context) error {
		if err := client.IgnoreNotFound(o.read(ctx, u)); err != nil || u.GetUID() == "" {
			return err
		}
		return client.IgnoreNotFound(o.Cluster.Client.Delete(ctx, u, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	})
	if err != nil || u.GetUID() == "" {
		return named(ref), fault.Wrap(op, nil, err, "")
	}
	uid := u.GetUID()
	err = o.await(ctx, func(ctx context.Context) (bool, error) {
		err := o.read(ctx, u)
		return apierrors.IsNotFound(err) || err == nil && u.GetUID() != uid, client.IgnoreNotFound(err)
	})
	return named(ref), fault.Wrap(op, nil, err, "")
}
