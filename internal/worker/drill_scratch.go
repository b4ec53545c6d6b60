package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/kube/volume"
)

const (
	scratchName   = "backstay-drill" // of what a drill puts into its namespaces beside the application
	podSecurity   = "pod-security.kubernetes.io/enforce"
	scratchDigits = 8 // of the drill's uid, in names of its namespaces
	dnsPort       = 53
	clearLook     = time.Second // between two looks whether something is gone
)

// scratch are the namespaces that stand for those of the point.
func (d *drill) scratch(namespaces []string) map[string]string {
	uid := strings.ReplaceAll(string(d.object.UID), "-", "")
	to := map[string]string{}
	for i, namespace := range namespaces {
		to[namespace] = v1alpha1.ScratchPrefix + uid[:min(scratchDigits, len(uid))]
		if len(namespaces) > 1 {
			to[namespace] += fmt.Sprintf("-%d", i+1)
		}
	}
	return to
}

// ground makes the scratch namespaces, with what keeps those in who are in there.
func (d *drill) ground(ctx context.Context) error {
	names := slices.Sorted(maps.Values(d.restoration.object.Spec.Namespaces))
	if len(names) == 0 {
		return fault.New("drill "+d.object.Name, fault.ErrUnsupported, "the point has no namespace", "")
	}
	if err := d.save(ctx, func(s *v1alpha1.DrillStatus) { s.Namespaces = names }); err != nil {
		return err
	}
	owner := map[string]string{v1alpha1.LabelOwner: string(d.object.UID)}
	for _, name := range names {
		labels := maps.Clone(owner)
		labels[podSecurity] = cmp.Or(d.object.Spec.PodSecurity, "baseline")
		for _, o := range []client.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}},
			noWayOut(name, owner),
			noPorts(name, owner),
		} {
			if err := d.Cluster.Client.Create(ctx, o); err != nil {
				return fault.Wrap("make namespace "+name, kube.ClassOf(err), err, "")
			}
		}
	}
	return nil
}

// noWayOut lets pods of a drill's namespaces speak to each other and to the cluster's name servers, and to nobody else.
func noWayOut(namespace string, owner map[string]string) client.Object {
	among := []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: owner}}}
	system := []networkingv1.NetworkPolicyPeer{{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: metav1.NamespaceSystem}},
	}}
	port := intstr.FromInt32(dnsPort)
	udp, tcp := corev1.ProtocolUDP, corev1.ProtocolTCP
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: scratchName, Labels: owner},
		Spec: networkingv1.NetworkPolicySpec{
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: among}},
			Egress: []networkingv1.NetworkPolicyEgressRule{
				{To: among},
				{To: system, Ports: []networkingv1.NetworkPolicyPort{{Protocol: &udp, Port: &port}, {Protocol: &tcp, Port: &port}}},
			},
		},
	}
}

// noPorts has the API server refuse services that the world would reach, whoever makes them.
func noPorts(namespace string, owner map[string]string) client.Object {
	return &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: scratchName, Labels: owner},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourceServicesLoadBalancers: resource.Quantity{}, corev1.ResourceServicesNodePorts: resource.Quantity{},
		}},
	}
}

// clear removes what a drill made, and waits until nothing of it is left. It goes on after a failure.
func (w *Worker) clear(ctx context.Context, uid string) error {
	others := func(owner string) bool { return owner != uid }
	claims := &volume.Restorer{Cluster: w.Cluster, Application: w.Cluster, System: w.System, Owner: uid, Wait: stepTime, Poll: clearLook, Now: w.Now}
	namespaces, err := w.scratchOf(ctx, uid)
	failed := []error{err}
	for i := range namespaces {
		failed = append(failed, claims.GiveUp(ctx, namespaces[i].Name))
		err := w.Cluster.Client.Delete(ctx, &namespaces[i], client.Preconditions{UID: &namespaces[i].UID})
		failed = append(failed, fault.Wrap("delete namespace "+namespaces[i].Name, kube.ClassOf(client.IgnoreNotFound(err)), ignoreRace(err), ""))
	}
	_, err = w.keeper(w.System, uid, "").Tidy(ctx, others)
	failed = append(failed, err, w.dropActionSets(ctx, func(owner string) bool { return owner == uid }))
	if err := errors.Join(failed...); err != nil {
		return err
	}
	for i := range namespaces {
		if err := w.untilGone(ctx, &namespaces[i]); err != nil {
			return err
		}
		if err := claims.GiveUp(ctx, namespaces[i].Name); err != nil { // claims that were bound meanwhile
			return err
		}
	}
	if err := claims.TakeBack(ctx); err != nil {
		return err
	}
	return claims.AllGone(ctx)
}

// scratchOf are the scratch namespaces of a drill, or of all where uid is empty.
func (w *Worker) scratchOf(ctx context.Context, uid string) ([]corev1.Namespace, error) {
	which := []client.ListOption{client.HasLabels{v1alpha1.LabelOwner}}
	if uid != "" {
		which = []client.ListOption{client.MatchingLabels{v1alpha1.LabelOwner: uid}}
	}
	var all corev1.NamespaceList
	if err := w.Cluster.Client.List(ctx, &all, which...); err != nil {
		return nil, fault.Wrap("list namespaces of drills", kube.ClassOf(err), err, "")
	}
	return slices.DeleteFunc(all.Items, func(n corev1.Namespace) bool { return !strings.HasPrefix(n.Name, v1alpha1.ScratchPrefix) }), nil
}

// untilGone waits until a namespace that is deleted is gone. What keeps it is said by its conditions.
func (w *Worker) untilGone(ctx context.Context, n *corev1.Namespace) error {
	op := "wait until namespace " + n.Name + " is gone"
	for {
		var now corev1.Namespace
		err := w.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(n), &now)
		switch {
		case apierrors.IsNotFound(err) || err == nil && now.UID != n.UID:
			return nil
		case err != nil && !kube.Transient(err):
			return fault.Wrap(op, kube.ClassOf(err), err, "")
		}
		if err := kube.Pause(ctx, clearLook); err != nil {
			return fault.New(op, fault.ErrUnavailable, cmp.Or(whatKeeps(&now), "it takes too long"), "")
		}
	}
}

// whatKeeps is what the cluster says of why a namespace is not gone.
func whatKeeps(n *corev1.Namespace) string {
	var said []string
	for _, c := range n.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			said = append(said, c.Message)
		}
	}
	return strings.Join(said, "; ")
}

// clearEnded removes what drills left that have ended or are gone.
func (w *Worker) clearEnded(ctx context.Context, active func(uid string) bool) error {
	all, err := w.scratchOf(ctx, "")
	if err != nil {
		return err
	}
	owners := map[string]bool{}
	for _, n := range all {
		owners[n.Labels[v1alpha1.LabelOwner]] = true
	}
	var failed []error
	for _, uid := range sortedKeys(owners) {
		if !active(uid) {
			failed = append(failed, w.clear(ctx, uid))
		}
	}
	return errors.Join(failed...)
}
