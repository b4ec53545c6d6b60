package blueprint

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// ResolveOptions say what Params are made of, besides what stands in the ActionSet.
type ResolveOptions struct {
	// Confined refuses Profiles of other namespaces than the ActionSet's.
	Confined bool
	// Profile takes the place of the ActionSet's. It comes by file.
	Profile *ProfileDocument
	// Vault says how kando reaches the vault of a Location, for Profiles that stand for one. Where nil, those are refused.
	Vault func(ctx context.Context, namespace, location string) (*VaultDocument, error)
	Now   func() time.Time
}

// resolving reads from a cluster for one ActionSet.
type resolving struct {
	client client.Client
	set    *ActionSet
}

// Resolve reads what templates see of an action: its object, with the pods of it that are ready, its Secrets, ConfigMaps and Profile.
// The client of c has to know the kinds of this package. An error has the class of what the API server answered; see kube.ClassOf.
func Resolve(ctx context.Context, c *kube.Cluster, set *ActionSet, action ActionSpec, b *Blueprint, o ResolveOptions) (*Params, error) {
	r := resolving{c.Client, set}
	p := &Params{
		ArtifactsIn:    copyMapOf(action.Artifacts, deepenArtifact),
		Options:        maps.Clone(action.Options),
		Phases:         map[string]*PhaseParams{},
		PodOverride:    copyMap(action.PodOverride),
		PodLabels:      maps.Clone(action.PodLabels),
		PodAnnotations: maps.Clone(action.PodAnnotations),
	}
	if o.Now != nil {
		p.Time = o.Now().UTC().Format(time.RFC3339Nano)
	}
	var err error
	if p.Secrets, err = readAll[corev1.Secret](ctx, r, "secret", action.Secrets); err != nil {
		return nil, err
	}
	if p.ConfigMaps, err = readAll[corev1.ConfigMap](ctx, r, "configmap", action.ConfigMaps); err != nil {
		return nil, err
	}
	if err := r.object(ctx, action.Object, p); err != nil {
		return nil, err
	}
	if err := r.profile(ctx, action.Profile, b, o, p); err != nil {
		return nil, err
	}
	return p, nil
}

// ResolveObjects reads the Secrets and ConfigMaps that a phase refers to. References without a namespace are to the ActionSet's.
func ResolveObjects(ctx context.Context, c *kube.Cluster, set *ActionSet, refs map[string]ObjectReference) (*PhaseParams, error) {
	r := resolving{c.Client, set}
	secrets, err := readAll[corev1.Secret](ctx, r, "secret", refs)
	if err != nil {
		return nil, err
	}
	configMaps, err := readAll[corev1.ConfigMap](ctx, r, "configmap", refs)
	if err != nil {
		return nil, err
	}
	return &PhaseParams{Secrets: secrets, ConfigMaps: configMaps}, nil
}

// readAll reads those of refs that are of a kind, or of none.
func readAll[T any, P interface {
	*T
	client.Object
}](ctx context.Context, r resolving, kind string, refs map[string]ObjectReference) (map[string]T, error) {
	all := map[string]T{}
	for name, ref := range refs {
		if !strings.EqualFold(cmp.Or(ref.Kind, kind), kind) {
			continue
		}
		var one T
		if err := r.get(ctx, kind, ref, P(&one)); err != nil {
			return nil, err
		}
		all[name] = one
	}
	return all, nil
}

// get reads what ref names.
func (r resolving) get(ctx context.Context, kind string, ref ObjectReference, into client.Object) error {
	key := client.ObjectKey{Namespace: cmp.Or(ref.Namespace, r.set.Namespace), Name: ref.Name}
	return classed(fmt.Sprintf("read %s %s", kind, key), r.client.Get(ctx, key, into))
}

// classed gives an error of the API server its class.
func classed(op string, err error) error {
	if meta.IsNoMatchError(err) {
		return fault.Wrap(op, fault.ErrNotFound, err, "")
	}
	return fault.Wrap(op, kube.ClassOf(err), err, "")
}

// Kinds of objects that Kanister knows by a name of its own.
const (
	kindStatefulSet      = "statefulset"
	kindDeployment       = "deployment"
	kindDeploymentConfig = "deploymentconfig"
	kindPVC              = "pvc"
	kindNamespace        = "namespace"
)

// resourceOf is where the API server keeps what ref names: by its kind if that is one that needs no more, else by group, version and
// resource.
func resourceOf(ref ObjectReference) (schema.GroupVersionResource, error) {
	switch strings.ToLower(ref.Kind) {
	case kindStatefulSet:
		return appsv1.SchemeGroupVersion.WithResource("statefulsets"), nil
	case kindDeployment:
		return appsv1.SchemeGroupVersion.WithResource("deployments"), nil
	case kindDeploymentConfig:
		return schema.GroupVersionResource{Group: "apps.openshift.io", Version: "v1", Resource: "deploymentconfigs"}, nil
	case kindPVC, "persistentvolumeclaim":
		return corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"), nil
	case kindNamespace:
		return corev1.SchemeGroupVersion.WithResource("namespaces"), nil
	}
	group, version := ref.Group, ref.APIVersion
	if g, v, both := strings.Cut(version, "/"); both {
		group, version = g, v
	}
	if ref.Resource == "" {
		return schema.GroupVersionResource{}, fault.New("object "+ref.Kind+" "+ref.Name, fault.ErrInvalid, "it has no resource",
			"set kind to StatefulSet, Deployment, DeploymentConfig, PVC or Namespace, or else apiVersion, group and resource")
	}
	return schema.GroupVersionResource{Group: group, Version: version, Resource: ref.Resource}, nil
}

// object reads the object of an action, and what Kanister shows of its kind.
func (r resolving) object(ctx context.Context, ref ObjectReference, p *Params) error {
	gvr, err := resourceOf(ref)
	if err != nil {
		return err
	}
	namespace, name := cmp.Or(ref.Namespace, r.set.Namespace), ref.Name
	kind := strings.ToLower(ref.Kind)
	if kind == kindNamespace {
		name = cmp.Or(name, ref.Namespace)
	}
	op := fmt.Sprintf("read %s %s/%s", gvr.GroupResource(), namespace, name)
	gvk, err := r.client.RESTMapper().KindFor(gvr)
	if err != nil {
		return classed(op, err)
	}
	var u unstructured.Unstructured
	u.SetGroupVersionKind(gvk)
	namespaced, err := r.client.IsObjectNamespaced(&u)
	if err != nil {
		return classed(op, err)
	}
	key := client.ObjectKey{Name: name}
	if namespaced {
		key.Namespace = namespace
	}
	if err := r.client.Get(ctx, key, &u); err != nil {
		return classed(op, err)
	}
	p.Object = u.Object
	switch gvr.Resource {
	case "statefulsets":
		p.StatefulSet, err = r.workload(ctx, &u, func(context.Context) (metav1.Object, error) { return &u, nil })
	case "deployments":
		p.Deployment, err = r.workload(ctx, &u, func(ctx context.Context) (metav1.Object, error) { return r.replicaSet(ctx, &u) })
	case "deploymentconfigs":
		p.DeploymentConfig, err = r.workload(ctx, &u, func(ctx context.Context) (metav1.Object, error) { return r.replicationController(ctx, &u) })
	case "persistentvolumeclaims":
		p.PVC = &ObjectParams{Name: name, Namespace: namespace}
	case "namespaces":
		p.Namespace = &ObjectParams{Name: name, Namespace: name}
	}
	return err
}

// workload finds the pods of a workload that are ready: those of the owner that has them.
func (r resolving) workload(ctx context.Context, w *unstructured.Unstructured, owner func(context.Context) (metav1.Object, error)) (*WorkloadParams, error) {
	found := &WorkloadParams{
		Name: w.GetName(), Namespace: w.GetNamespace(),
		Pods: []string{}, Containers: [][]string{}, PersistentVolumeClaims: map[string]map[string]string{},
	}
	of, err := owner(ctx)
	if err != nil || of == nil {
		return found, err
	}
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, client.InNamespace(w.GetNamespace())); err != nil {
		return nil, classed("list pods of "+w.GetNamespace()+"/"+w.GetName(), err)
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { // web-2 before web-10
		return cmp.Or(len(a.Name)-len(b.Name), strings.Compare(a.Name, b.Name))
	})
	for _, pod := range pods.Items {
		if !metav1.IsControlledBy(&pod, of) || !ready(pod) {
			continue
		}
		found.Pods = append(found.Pods, pod.Name)
		found.Containers = append(found.Containers, containersOf(pod))
		if claims := claimsOf(pod); len(claims) > 0 {
			found.PersistentVolumeClaims[pod.Name] = claims
		}
	}
	return found, nil
}

// replicaSet is the one of a Deployment's that has its newest pods; nil while there is none.
func (r resolving) replicaSet(ctx context.Context, d *unstructured.Unstructured) (metav1.Object, error) {
	const revision = "deployment.kubernetes.io/revision"
	var all appsv1.ReplicaSetList
	if err := r.client.List(ctx, &all, client.InNamespace(d.GetNamespace())); err != nil {
		return nil, classed("list replica sets of "+d.GetNamespace()+"/"+d.GetName(), err)
	}
	for i := range all.Items {
		if rs := &all.Items[i]; metav1.IsControlledBy(rs, d) && rs.Annotations[revision] == d.GetAnnotations()[revision] {
			return rs, nil
		}
	}
	return nil, nil
}

// replicationController is the one of a DeploymentConfig's that has its newest pods; nil while there is none.
func (r resolving) replicationController(ctx context.Context, d *unstructured.Unstructured) (metav1.Object, error) {
	const revision = "openshift.io/deployment-config.latest-version"
	latest, _, _ := unstructured.NestedInt64(d.Object, "status", "latestVersion")
	var all corev1.ReplicationControllerList
	if err := r.client.List(ctx, &all, client.InNamespace(d.GetNamespace())); err != nil {
		return nil, classed("list replication controllers of "+d.GetNamespace()+"/"+d.GetName(), err)
	}
	for i := range all.Items {
		if rc := &all.Items[i]; metav1.IsControlledBy(rc, d) && rc.Annotations[revision] == fmt.Sprint(latest) {
			return rc, nil
		}
	}
	return nil, nil
}

func ready(pod corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// containersOf names a pod's containers in the order of its status, which is Kanister's.
func containersOf(pod corev1.Pod) []string {
	var names []string
	for _, c := range pod.Status.ContainerStatuses {
		names = append(names, c.Name)
	}
	if len(names) == 0 {
		for _, c := range pod.Spec.Containers {
			names = append(names, c.Name)
		}
	}
	return names
}

// claimsOf says where a pod's claims are mounted.
func claimsOf(pod corev1.Pod) map[string]string {
	claims := map[string]string{} // by volume
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			claims[v.Name] = v.PersistentVolumeClaim.ClaimName
		}
	}
	mounts := map[string]string{}
	for _, c := range pod.Spec.Containers {
		for _, m := range c.VolumeMounts {
			if claim, is := claims[m.Name]; is {
				mounts[claim] = m.MountPath
			}
		}
	}
	return mounts
}
