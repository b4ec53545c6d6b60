package kubetest

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestMain(m *testing.M) { Main(m) }

func TestServer(t *testing.T) {
	config := Start(t)
	if again := Start(t); again == config || again.Host != config.Host {
		t.Errorf("a second Start gave %p to %s, want a copy for the same server, %s", again, again.Host, config.Host)
	}
	a, b := Namespace(t, config), Namespace(t, config)
	if a == b || !strings.HasPrefix(a, "server-") {
		t.Errorf("namespaces %q and %q, want two that begin with server-", a, b)
	}

	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if _, err := clients.CoreV1().Pods(a).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Error("create a pod: ", err)
	}

	for _, group := range []string{"snapshot.storage.k8s.io/v1", "groupsnapshot.storage.k8s.io/v1beta1", "cr.kanister.io/v1alpha1"} {
		if _, err := discovery.NewDiscoveryClient(clients.RESTClient()).ServerResourcesForGroupVersion(group); err != nil {
			t.Errorf("%s is not served: %v", group, err)
		}
	}
}

func TestRightsAreThoseOfRBAC(t *testing.T) {
	config := Start(t)
	ns := Namespace(t, config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + ns + ":nobody"}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := clients.CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing secrets without rights: got %v, want forbidden", err)
	}
}

func TestPrefix(t *testing.T) {
	for test, want := range map[string]string{
		"TestServer":                      "server-",
		"TestPlan/an_object that is, too": "plan-an-object-that-is--too-",
		"Test" + strings.Repeat("x", 100): strings.Repeat("x", 40) + "-",
		"TestÜberall":                     "berall-",
	} {
		if got := prefix(test); got != want {
			t.Errorf("prefix(%q) = %q, want %q", test, got, want)
		}
	}
}
