package volume_test

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// binder plays the controllers of volumes in some namespaces: it binds claims to volumes promised to them, makes volumes for others,
// lets deleted claims go once no pod uses them, and releases and deletes volumes by their policy.
type binder struct {
	clients    kubernetes.Interface
	namespaces map[string]bool
}

// bind runs a binder until the test ends.
func bind(t *testing.T, config *rest.Config, namespaces ...string) {
	t.Helper()
	config = rest.CopyConfig(config)
	config.QPS = -1
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	b := binder{clients: clients, namespaces: map[string]bool{}}
	for _, ns := range namespaces {
		b.namespaces[ns] = true
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // it is to run during cleanups
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			b.round(ctx)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// round is one look at everything. What fails is tried again in the next.
func (b binder) round(ctx context.Context) {
	volumes, err := b.clients.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	claims := map[string]*corev1.PersistentVolumeClaim{}
	for ns := range b.namespaces {
		list, err := b.clients.CoreV1().PersistentVolumeClaims(ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return
		}
		for i := range list.Items {
			claims[ns+"/"+list.Items[i].Name] = &list.Items[i]
		}
	}
	for i := range volumes.Items {
		b.volume(ctx, &volumes.Items[i], claims)
	}
	for _, c := range claims {
		switch {
		case c.DeletionTimestamp != nil:
			b.letGo(ctx, c)
		case c.Spec.VolumeName == "":
			b.bindClaim(ctx, c, volumes.Items)
		}
	}
}

// volume releases one whose claim is gone, and deletes it if that is its policy.
func (b binder) volume(ctx context.Context, v *corev1.PersistentVolume, claims map[string]*corev1.PersistentVolumeClaim) {
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" || !b.namespaces[ref.Namespace] {
		return
	}
	if c := claims[ref.Namespace+"/"+ref.Name]; c != nil && c.UID == ref.UID {
		return
	}
	if v.Status.Phase != corev1.VolumeReleased {
		v.Status.Phase = corev1.VolumeReleased
		_, _ = b.clients.CoreV1().PersistentVolumes().UpdateStatus(ctx, v, metav1.UpdateOptions{})
		return
	}
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		if len(v.Finalizers) > 0 {
			v.Finalizers = nil
			_, _ = b.clients.CoreV1().PersistentVolumes().Update(ctx, v, metav1.UpdateOptions{})
		}
		_ = b.clients.CoreV1().PersistentVolumes().Delete(ctx, v.Name, metav1.DeleteOptions{})
	}
}

func (b binder) letGo(ctx context.Context, c *corev1.PersistentVolumeClaim) {
	pods, err := b.clients.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return
	}
	for _, p := range pods.Items {
		for _, v := range p.Spec.Volumes {
			if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == c.Name {
				return
			}
		}
	}
	c.Finalizers = nil
	_, _ = b.clients.CoreV1().PersistentVolumeClaims(c.Namespace).Update(ctx, c, metav1.UpdateOptions{})
}

// bindClaim binds a claim to the volume promised to it, or to a new one.
func (b binder) bindClaim(ctx context.Context, c *corev1.PersistentVolumeClaim, volumes []corev1.PersistentVolume) {
	asked := c.Spec.Resources.Requests[corev1.ResourceStorage]
	for i := range volumes {
		v := &volumes[i]
		ref := v.Spec.ClaimRef
		has := v.Spec.Capacity[corev1.ResourceStorage]
		if ref == nil || ref.Namespace != c.Namespace || ref.Name != c.Name || (ref.UID != "" && ref.UID != c.UID) || has.Cmp(asked) < 0 {
			continue
		}
		ref.UID = c.UID
		b.join(ctx, c, v)
		return
	}
	b.mark(c, provisioner, "test.backstay.io")
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + string(c.UID)},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: asked}, AccessModes: c.Spec.AccessModes, VolumeMode: c.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete, StorageClassName: *c.Spec.StorageClassName,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "test.backstay.io", VolumeHandle: string(c.UID)}},
			ClaimRef:               &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: c.Namespace, Name: c.Name, UID: c.UID},
		},
	}
	if made, err := b.clients.CoreV1().PersistentVolumes().Create(ctx, v, metav1.CreateOptions{}); err == nil {
		b.join(ctx, c, made)
	}
}

const provisioner = "volume.kubernetes.io/storage-provisioner"

func (b binder) join(ctx context.Context, c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
	v, err := b.clients.CoreV1().PersistentVolumes().Update(ctx, v, metav1.UpdateOptions{})
	if err != nil {
		return
	}
	v.Status.Phase = corev1.VolumeBound
	if _, err = b.clients.CoreV1().PersistentVolumes().UpdateStatus(ctx, v, metav1.UpdateOptions{}); err != nil {
		return
	}
	b.mark(c, "pv.kubernetes.io/bind-completed", "yes")
	b.mark(c, "pv.kubernetes.io/bound-by-controller", "yes")
	c.Spec.VolumeName = v.Name
	if c, err = b.clients.CoreV1().PersistentVolumeClaims(c.Namespace).Update(ctx, c, metav1.UpdateOptions{}); err != nil {
		return
	}
	c.Status.Phase, c.Status.Capacity, c.Status.AccessModes = corev1.ClaimBound, v.Spec.Capacity, v.Spec.AccessModes
	_, _ = b.clients.CoreV1().PersistentVolumeClaims(c.Namespace).UpdateStatus(ctx, c, metav1.UpdateOptions{})
}

func (b binder) mark(c *corev1.PersistentVolumeClaim, annotation, value string) {
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, annotation, value)
}
