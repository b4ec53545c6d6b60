package volume

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// way is how workloads of a kind are stopped.
type way int

const (
	byReplicas way = iota + 1 // spec.replicas is 0
	bySuspend                 // spec.suspend is true
	byNodes                   // the pods' nodeSelector fits no node
	byScale                   // the subresource scale says 0: kinds that Backstay does not know
)

// known are the kinds that come with Kubernetes and make pods, with where their template is.
var known = []struct {
	kind     schema.GroupVersionKind
	way      way
	template []string
}{
	{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, byReplicas, []string{"spec", "template", "spec"}},
	{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "StatefulSet"}, byReplicas, []string{"spec", "template", "spec"}},
	{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"}, byReplicas, []string{"spec", "template", "spec"}},
	{schema.GroupVersionKind{Version: "v1", Kind: "ReplicationController"}, byReplicas, []string{"spec", "template", "spec"}},
	{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "DaemonSet"}, byNodes, []string{"spec", "template", "spec"}},
	{schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "CronJob"}, bySuspend, []string{"spec", "jobTemplate", "spec", "template", "spec"}},
	{schema.GroupVersionKind{Group: "batch", Version: "v1", Kind: "Job"}, bySuspend, []string{"spec", "template", "spec"}},
}

func knownWay(kind schema.GroupVersionKind) way {
	for _, k := range known {
		if k.kind.GroupKind() == kind.GroupKind() {
			return k.way
		}
	}
	return 0
}

// scalable finds the kinds that have the subresource scale, each in the version that the server prefers.
func (r *Restorer) scalable(ctx context.Context, c *kube.Cluster) (map[schema.GroupKind]schema.GroupVersionKind, error) {
	var lists []*metav1.APIResourceList
	err := r.call(ctx, "ask which kinds there are", func(context.Context) (err error) {
		_, lists, err = c.Discovery.ServerGroupsAndResources()
		if discovery.IsGroupDiscoveryFailedError(err) { // the others are there
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	found := map[schema.GroupKind]schema.GroupVersionKind{}
	for _, list := range lists { // the preferred version of a group is its first
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		kinds := map[string]string{}
		for _, resource := range list.APIResources {
			kinds[resource.Name] = resource.Kind
		}
		for _, resource := range list.APIResources {
			plural, isScale := strings.CutSuffix(resource.Name, "/scale")
			kind := gv.WithKind(kinds[plural])
			if _, have := found[kind.GroupKind()]; isScale && kind.Kind != "" && !have {
				found[kind.GroupKind()] = kind
			}
		}
	}
	return found, nil
}

// workload is something that makes pods, or a pod that nothing makes.
type workload struct {
	object *unstructured.Unstructured
	way    way
	above  string // what owns it and may start it again, as far as one can see; may be empty
}

func (w workload) String() string {
	text := kindAndName(w.object)
	if w.above != "" {
		text += " (belongs to " + w.above + ", which may start it again)"
	}
	return text
}

func kindAndName(o *unstructured.Unstructured) string {
	return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
}

// survey of the workloads of one namespace that use claims.
type users struct {
	cluster  *kube.Cluster
	scalable map[schema.GroupKind]schema.GroupVersionKind
	seen     map[string]bool
	found    []workload
	bare     []corev1.Pod // that nothing makes
}

// find looks for what uses the claims of a namespace: from the pods that are there upwards to what makes them in the end, and by the
// templates of what might make some.
func (u *users) find(ctx context.Context, namespace string, claims []string, pods []corev1.Pod) error {
	for i := range pods {
		if ended(&pods[i]) {
			continue
		}
		if err := u.abovePod(ctx, &pods[i]); err != nil {
			return err
		}
	}
	for _, k := range known {
		var list unstructured.UnstructuredList
		list.SetGroupVersionKind(k.kind.GroupVersion().WithKind(k.kind.Kind + "List"))
		if err := u.cluster.Client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return readFault("list what makes pods in "+namespace, err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if !templateMounts(o, k.template, claims) {
				continue
			}
			if err := u.add(ctx, o); err != nil {
				return err
			}
		}
	}
	return nil
}

func ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// mirrorOf is on pods that a node runs by itself, from a file.
const mirrorOf = "kubernetes.io/config.mirror"

// abovePod adds what makes a pod, or the pod itself where nothing does.
func (u *users) abovePod(ctx context.Context, p *corev1.Pod) error {
	if _, mirror := p.Annotations[mirrorOf]; mirror {
		return fault.New("", fault.ErrUnsupported, fmt.Sprintf("pod %s/%s is run by its node from a file; it cannot be stopped", p.Namespace, p.Name), "")
	}
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		if p.DeletionTimestamp == nil {
			u.bare = append(u.bare, *p)
		}
		return nil
	}
	o, err := u.owner(ctx, p.Namespace, owner)
	if err != nil {
		return err
	}
	if o == nil {
		return nil // it goes after its owner
	}
	return u.add(ctx, o)
}

// owner reads an owner; nil is one that is gone.
func (u *users) owner(ctx context.Context, namespace string, ref *metav1.OwnerReference) (*unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(ref.APIVersion)
	o.SetKind(ref.Kind)
	err := u.cluster.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, o)
	if apierrors.IsNotFound(err) || (err == nil && o.GetUID() != ref.UID) {
		return nil, nil //nolint:nilnil // documented: gone
	}
	return o, err
}

// deepest is how many owners are followed upwards.
const deepest = 10

// add follows the owners of an object upwards and adds the highest one that can be stopped. A Job is stopped beside its CronJob.
func (u *users) add(ctx context.Context, o *unstructured.Unstructured) error {
	top := workload{}
	for range deepest {
		kind := o.GroupVersionKind()
		switch how := knownWay(kind); {
		case how != 0:
			if top.object != nil && top.object.GetKind() == "Job" {
				u.keep(top)
			}
			top = workload{object: o, way: how}
		case u.scalable[kind.GroupKind()] != schema.GroupVersionKind{}:
			top = workload{object: o, way: byScale}
		default:
			top.above = kindAndName(o)
		}
		owner := metav1.GetControllerOf(o)
		if owner == nil {
			break
		}
		above, err := u.owner(ctx, o.GetNamespace(), owner)
		if err != nil { // who may not see the owner can still stop what is below it
			if !meta.IsNoMatchError(err) && !apierrors.IsForbidden(err) {
				return readFault("read "+owner.Kind+" "+owner.Name, err)
			}
			top.above = owner.Kind + " " + owner.Name
			break
		}
		if above == nil {
			break
		}
		o = above
	}
	if top.object == nil {
		return fault.New("", fault.ErrUnsupported, "the pods of "+top.above+" are made by a controller that is not known", "stop it, and restore again")
	}
	u.keep(top)
	return nil
}

func (u *users) keep(w workload) {
	if name := w.object.GroupVersionKind().Group + " " + kindAndName(w.object); !u.seen[name] {
		u.seen[name] = true
		u.found = append(u.found, w)
	}
}

// templateMounts reports whether pods of an object's template mount one of the claims. A StatefulSet's have claims of their own.
func templateMounts(o *unstructured.Unstructured, template, claims []string) bool {
	var spec corev1.PodSpec
	raw, _, err := unstructured.NestedMap(o.Object, template...)
	if err != nil || runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &spec) != nil {
		return false
	}
	if mounts("", &spec, claims) {
		return true
	}
	own, _, _ := unstructured.NestedSlice(o.Object, "spec", "volumeClaimTemplates")
	for _, c := range own {
		one, _ := c.(map[string]any)
		name, _, _ := unstructured.NestedString(one, "metadata", "name")
		if claims == nil || slices.ContainsFunc(claims, func(claim string) bool { return isOrdinal(claim, name+"-"+o.GetName()+"-") }) {
			return true
		}
	}
	return false
}

// isOrdinal reports whether a name is prefix and a number.
func isOrdinal(name, prefix string) bool {
	number, ok := strings.CutPrefix(name, prefix)
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// podsUsing lists the pods of a namespace that mount one of the claims; all that mount any claim where claims is nil. A pod that has
// ended counts: its claim cannot be deleted either.
func (r *Restorer) podsUsing(ctx context.Context, namespace string, claims []string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	if err := r.Application.Client.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return nil, readFault("list pods of "+namespace, err)
	}
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return !mounts(p.Name, &p.Spec, claims) }), nil
}

// mounts reports whether a pod mounts one of the claims, any where claims is nil.
func mounts(pod string, spec *corev1.PodSpec, claims []string) bool {
	for _, v := range spec.Volumes {
		name := ""
		switch {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			name = pod + "-" + v.Name
		default:
			continue
		}
		if claims == nil || slices.Contains(claims, name) {
			return true
		}
	}
	return false
}

// podNames is for messages: the first few.
func podNames(pods []corev1.Pod) string {
	const few = 3
	var names []string
	for _, p := range pods[:min(few, len(pods))] {
		names = append(names, "pod "+p.Name)
	}
	if len(pods) > few {
		names = append(names, "and more")
	}
	return strings.Join(names, ", ")
}

// readFault gives an answer of the API server its class.
func readFault(op string, err error) error { return fault.Wrap(op, nil, classify(err), "") }
