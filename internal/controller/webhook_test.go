package controller_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/controller"
)

// holding is a world whose API server asks the controller before syncs, as the chart has it ask.
func holding(t *testing.T) (w *world, stop func()) {
	t.Helper()
	address := "127.0.0.1:" + freePort(t)
	w = newWorld(t, func(o *controller.Options) { o.Webhook = address })
	w.argo()
	w.apply("webhook.yaml")
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", "chart", "backstay", "templates", "webhook.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, document, _ := strings.Cut(string(text), "\n---\n")
	var lines []string
	for line := range strings.Lines(document) {
		if !strings.HasPrefix(strings.TrimSpace(line), "{{") {
			lines = append(lines, line)
		}
	}
	var hooks admissionregistrationv1.ValidatingWebhookConfiguration
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(strings.Join(lines, ""), "{{ .Release.Namespace }}", w.system)), &hooks); err != nil {
		t.Fatal(err)
	}
	url := "https://" + address + *hooks.Webhooks[0].ClientConfig.Service.Path // the API server of tests reaches no Services
	hooks.Webhooks[0].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: &url}
	w.create(&hooks)
	t.Cleanup(func() { _ = w.admin.Delete(context.Background(), &hooks) }) // the test's own context is over
	stop = w.start()
	w.eventually("trust", func() string {
		if err := w.get(&hooks); err != nil || len(hooks.Webhooks[0].ClientConfig.CABundle) == 0 {
			return "the API server trusts nobody yet"
		}
		return ""
	})
	return w, stop
}

// asks asks for a sync as argocd-server and Argo CD's controller do.
func (w *world) asks(a *unstructured.Unstructured, operation string) error {
	w.Helper()
	for {
		if err := w.get(a); err != nil {
			w.Fatal(err)
		}
		if err := unstructured.SetNestedMap(a.Object, w.parse(operation).Object, "operation"); err != nil {
			w.Fatal(err)
		}
		if err := w.admin.Update(w.Context(), a); !apierrors.IsConflict(err) { // the controller annotates it
			return err
		}
	}
}

// noted writes the annotations of an Application.
func (w *world) noted(a *unstructured.Unstructured, annotations map[string]string) {
	w.Helper()
	w.eventually("annotate", func() string {
		if err := w.get(a); err != nil {
			return err.Error()
		}
		a.SetAnnotations(annotations)
		if err := w.admin.Update(w.Context(), a); err != nil {
			return err.Error()
		}
		return ""
	})
}

// denied waits until a sync is denied with words: the API server takes a moment to know of a webhook.
func (w *world) denied(a *unstructured.Unstructured, operation, words string) {
	w.Helper()
	w.eventually("denial", func() string {
		if err := w.asks(a, operation); err == nil || !strings.Contains(err.Error(), words) {
			w.idle(a)
			return "it is answered " + said(err)
		}
		return ""
	})
}

func said(err error) string {
	if err == nil {
		return "with yes"
	}
	return err.Error()
}

// idle takes an operation away that was let through.
func (w *world) idle(a *unstructured.Unstructured) {
	w.Helper()
	w.eventually("take operation away", func() string {
		if err := w.get(a); err != nil {
			return err.Error()
		}
		unstructured.RemoveNestedField(a.Object, "operation")
		if err := w.admin.Update(w.Context(), a); err != nil {
			return err.Error()
		}
		return ""
	})
}

func TestASyncIsHeldUntilThereIsAPoint(t *testing.T) {
	w, _ := holding(t)
	into := w.namespace()
	a := w.application(w.system, "shop", into)
	w.location(w.system)
	w.guards(into, func(g *v1alpha1.GitOps) { g.Ungated = v1alpha1.UngatedHold })
	w.denied(a, rollsBack, "a point is being made first")
	var b *v1alpha1.Backup
	w.eventually("backup", func() string {
		var all v1alpha1.BackupList
		if err := w.admin.List(t.Context(), &all, client.InNamespace(w.system)); err != nil || len(all.Items) != 1 {
			return "there is not one"
		}
		b = &all.Items[0]
		return ""
	})
	w.denied(a, rollsBack, "a point is being made first")
	w.denied(a, selective, "before another sync")
	w.status(b, func() {
		b.Status.Phase, b.Status.Instant = v1alpha1.PhaseMoving, instant(w.clock.now(), true)
		at := metav1.NewTime(w.clock.now())
		b.Status.Started = &at
	})
	w.eventually("the sync may begin", func() string {
		if err := w.asks(a, rollsBack); err != nil {
			return err.Error()
		}
		return ""
	})
	w.eventually("Argo CD is asked to look again", func() string {
		if err := w.get(a); err != nil || a.GetAnnotations()["argocd.argoproj.io/refresh"] == "" {
			return "it is not"
		}
		return ""
	})
	started := w.clock.now().Truncate(time.Second).Add(time.Second)
	w.idle(a)
	w.syncsAt(a, started, "Running", rollsBack)
	w.eventually("the Gate is used", func() string {
		for _, g := range w.gates(into)[v1alpha1.GateSnapshot] {
			if s := g.Status.Sync; s.Started != nil && s.Started.Time.Equal(started) {
				return ""
			}
		}
		return "it is not"
	})
	w.syncsAt(a, started, "Succeeded", rollsBack)
	w.denied(a, rollsBack, "a point is being made first") // another
	if of := w.gates(into); len(of[v1alpha1.GateRollback]) != 0 {
		t.Errorf("a sync that was held is recorded as ungated: %v", of)
	}
}

func TestWhatTheWebhookLetsThrough(t *testing.T) {
	w, _ := holding(t)
	into := w.namespace()
	a := w.application(w.system, "shop", into)
	w.location(w.system)
	p := w.guards(into, func(g *v1alpha1.GitOps) { g.Ungated = v1alpha1.UngatedHold })
	r := &v1alpha1.Restore{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "back"}, Spec: v1alpha1.RestoreSpec{RestorePoint: "none"}}
	w.create(r)
	ours := `{sync: {revision: zzz, syncStrategy: {apply: {}}}, info: [{name: backstay.io/restore, value: ` + string(r.UID) + `}]}`
	w.denied(a, ours, "a point is being made first") // no transaction of shop is under way
	through := func(what, operation string) {
		t.Helper()
		if err := w.asks(a, operation); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		w.idle(a)
	}
	w.status(r, func() { r.Status.GitOps = &v1alpha1.TransactionStatus{Deployment: "argocd/" + w.system + "/shop"} })
	w.eventually("our own Restore's sync", func() string { // the controller's cache
		if err := w.asks(a, ours); err != nil {
			return err.Error()
		}
		w.idle(a)
		return ""
	})
	through("a sync with hooks", full)
	through("a dry run", `{sync: {revision: bbb, dryRun: true, syncStrategy: {apply: {}}}}`)
	w.noted(a, map[string]string{v1alpha1.AnnotationBreakGlass: "on fire"})
	through("break glass", rollsBack)
	w.noted(a, nil)
	if err := w.asks(a, selective); err == nil {
		t.Error("a sync is let through before the policy changes")
	}
	w.eventually("policy", func() string {
		if err := w.get(p); err != nil {
			return err.Error()
		}
		p.Spec.GitOps.Ungated = v1alpha1.UngatedPoint
		if err := w.admin.Update(t.Context(), p); err != nil {
			return err.Error()
		}
		return ""
	})
	w.eventually("a policy that holds nothing", func() string {
		if err := w.asks(a, selective); err != nil {
			return err.Error()
		}
		return ""
	})
}

func TestTheWebhooksCertificateIsRenewed(t *testing.T) {
	w, stop := holding(t)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "backstay-webhook"}}
	if err := w.get(secret); err != nil {
		t.Fatal(err)
	}
	first := secret.DeepCopy()
	stop()
	w.clock.forward(320 * 24 * time.Hour)
	w.start()
	w.eventually("another certificate", func() string {
		if err := w.get(secret); err != nil || string(secret.Data["tls.crt"]) == string(first.Data["tls.crt"]) {
			return "it is the old one"
		}
		return ""
	})
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(secret.Data["ca.crt"]) {
		t.Fatal("no bundle")
	}
	for _, data := range []map[string][]byte{first.Data, secret.Data} {
		pair, err := tls.X509KeyPair(data["tls.crt"], data["tls.key"])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "127.0.0.1", CurrentTime: w.clock.now()}); err != nil {
			t.Errorf("a certificate of the time of change is not trusted: %v", err)
		}
	}
}
