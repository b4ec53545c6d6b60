package controller

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
	"github.com/backstay/backstay/internal/kube"
)

const (
	webhookName   = "backstay-gate"    // of the ValidatingWebhookConfiguration
	webhookSecret = "backstay-webhook" // of its certificate, in Backstay's own namespace
	webhookPath   = "/hold"
	bundleKey     = "ca.crt" // in the Secret: what the API server trusts, this certificate and the one before

	mostReview      = 8 << 20 // bytes: an Application before and after; neither is larger than what etcd takes
	webhookTime     = 10 * time.Second
	certificateLook = time.Minute
	certificateAge  = 365 * 24 * time.Hour
	certificateLeft = 60 * 24 * time.Hour // when another is made
)

// webhook answers the API server, which asks before a sync of an Application is asked for. Each process does, not the leader alone. Its
// certificate is its own authority: the API server is told to trust just that one.
type webhook struct {
	deployments
	serving atomic.Pointer[tls.Certificate]
}

// addWebhook serves the webhook where that is wanted.
func (c *controller) addWebhook(m manager.Manager) error {
	if c.Webhook == "" {
		return nil
	}
	return m.Add(&webhook{deployments: deployments{c, m.GetCache()}})
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (w *webhook) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable: it serves until ctx ends.
func (w *webhook) Start(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", w.Webhook)
	if err != nil {
		return fault.Wrap("serve the webhook", fault.ErrInvalid, err, "")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+webhookPath, w.review)
	server := &http.Server{
		Handler: mux, ReadTimeout: webhookTime, WriteTimeout: webhookTime,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if pair := w.serving.Load(); pair != nil {
				return pair, nil
			}
			return nil, errors.New("there is no certificate yet")
		}},
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	w.certify(ctx)
	closed := server.Close() // the API server asks no more of a process that ends, and does without an answer
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fault.Wrap("serve the webhook", fault.ErrUnavailable, err, "")
	}
	return closed
}

// certify keeps the certificate good, and the API server trusting it, until ctx ends.
func (w *webhook) certify(ctx context.Context) {
	told := ""
	for {
		err := w.renew(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			w.Log.Warn("the webhook has no certificate that is trusted", "error", err)
		}
		pause := certificateLook
		if err != nil {
			pause = definitionsLook / 10
		}
		if kube.Pause(ctx, pause) != nil {
			return
		}
	}
}

// renew takes the certificate of the Secret, makes another where that ends soon, and tells the API server. Several processes may do so at
// once: the Secret takes one of theirs, and the others take that.
func (w *webhook) renew(ctx context.Context) error {
	var hooks admissionregistrationv1.ValidatingWebhookConfiguration
	if err := w.direct.Get(ctx, types.NamespacedName{Name: webhookName}, &hooks); err != nil {
		return fmt.Errorf("read webhook %s: %w", webhookName, err)
	}
	secret := corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: webhookSecret, Namespace: w.System}}
	err := w.direct.Get(ctx, client.ObjectKeyFromObject(&secret), &secret)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("read secret %s: %w", webhookSecret, err)
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil || pair.Leaf == nil || pair.Leaf.NotAfter.Sub(w.Now()) < certificateLeft || !covers(pair.Leaf, hosts(&hooks)) {
		before := secret.Data[corev1.TLSCertKey]
		if secret.Data, err = newCertificate(w.Now(), hosts(&hooks), before); err != nil {
			return err
		}
		secret.Type = corev1.SecretTypeTLS
		if missing {
			err = w.client.Create(ctx, &secret)
		} else {
			err = w.client.Update(ctx, &secret) // of the version that was read
		}
		if err != nil {
			return fmt.Errorf("write secret %s: %w", webhookSecret, err)
		}
		if pair, err = tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]); err != nil {
			return fmt.Errorf("read secret %s: %w", webhookSecret, err)
		}
	}
	w.serving.Store(&pair)
	return w.trust(ctx, &hooks, secret.Data[bundleKey])
}

// trust tells the API server which certificates are ours.
func (w *webhook) trust(ctx context.Context, hooks *admissionregistrationv1.ValidatingWebhookConfiguration, bundle []byte) error {
	before, changed := hooks.DeepCopy(), false
	for i := range hooks.Webhooks {
		c := &hooks.Webhooks[i].ClientConfig
		changed = changed || string(c.CABundle) != string(bundle)
		c.CABundle = bundle
	}
	if !changed {
		return nil
	}
	if err := w.client.Patch(ctx, hooks, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("write webhook %s: %w", webhookName, err)
	}
	return nil
}

// hosts are the names by which the API server calls.
func hosts(hooks *admissionregistrationv1.ValidatingWebhookConfiguration) []string {
	var names []string
	for _, h := range hooks.Webhooks {
		if s := h.ClientConfig.Service; s != nil {
			names = append(names, s.Name+"."+s.Namespace+".svc")
		} else if h.ClientConfig.URL != nil {
			if u, err := url.Parse(*h.ClientConfig.URL); err == nil {
				names = append(names, u.Hostname())
			}
		}
	}
	return names
}

func covers(certificate *x509.Certificate, hosts []string) bool {
	for _, host := range hosts {
		if certificate.VerifyHostname(host) != nil {
			return false
		}
	}
	return true
}

// newCertificate makes the data of the Secret: a certificate that is its own authority, its key, and what to trust meanwhile.
func newCertificate(now time.Time, hosts []string, before []byte) (map[string][]byte, error) {
	const op = "make the webhook's certificate"
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	const bits = 120
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), bits))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{CommonName: webhookSecret}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateAge),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	bundle := append([]byte{}, certificate...)
	if block, _ := pem.Decode(before); block != nil && block.Type == "CERTIFICATE" { // others serve it for a moment
		bundle = append(bundle, pem.EncodeToMemory(block)...)
	}
	return map[string][]byte{
		corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), bundleKey: bundle,
	}, nil
}

// review answers one question of the API server. What cannot be answered is let through, as if nobody had been there to ask.
func (w *webhook) review(to http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(io.LimitReader(r.Body, mostReview)).Decode(&review); err != nil || review.Request == nil {
		http.Error(to, "no AdmissionReview", http.StatusBadRequest)
		return
	}
	asked := review.Request
	answer := &admissionv1.AdmissionResponse{UID: asked.UID, Allowed: true}
	denied, err := w.judge(r.Context(), asked)
	switch {
	case err != nil:
		w.Log.Warn("a sync is let through: whether it has to wait could not be found out", "namespace", asked.Namespace, "name", asked.Name, "error", err)
		answer.Warnings = []string{"backstay: whether this sync has to wait for a point could not be found out"}
	case denied != "":
		answer.Allowed = false
		answer.Result = &metav1.Status{Message: shorten("backstay: " + denied), Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden}
	}
	review.Request, review.Response = nil, answer
	to.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(to).Encode(review) // who asked may be gone
}

func (w *webhook) judge(ctx context.Context, asked *admissionv1.AdmissionRequest) (string, error) {
	after := &unstructured.Unstructured{}
	if err := json.Unmarshal(asked.Object.Raw, &after.Object); err != nil {
		return "", err
	}
	if after.GroupVersionKind() != gitops.ApplicationKind() || asked.Operation != admissionv1.Update {
		return "", nil
	}
	is, err := gitops.Object(ctx, w.direct, v1alpha1.EngineArgoCD+"/"+asked.Namespace+"/"+asked.Name)
	if err != nil || is.GetUID() != after.GetUID() { // anybody may ask; what is, counts
		return "", err
	}
	return w.ask(ctx, is, after, asked.DryRun != nil && *asked.DryRun)
}
