package worker

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// Repository is a git repository that an application is deployed from, with what opens it.
type Repository struct {
	URL        string // https, http, ssh or git; without credentials
	Username   string
	Password   fault.Secret // or a token
	App        *GitHubApp   // in their place
	SSHKey     fault.Secret // PEM
	KnownHosts string       // of ssh, as in its file
	CA         string       // PEM; trusted besides
	Insecure   bool         // the server's certificate is not checked
	LFS        bool
}

// GitHubApp lets in as an app of GitHub, or of the GitHub at URL.
type GitHubApp struct {
	ID, InstallationID int64
	PrivateKey         fault.Secret // PEM
	URL                string
}

// RepositorySource captures a repository as one part, git/HOST/PATH.git, and more inside of it.
type RepositorySource interface {
	protect.Source
	PartName() string
}

// Labels and names of Argo CD.
const (
	labelSecretType  = "argocd.argoproj.io/secret-type"
	typeRepository   = "repository"
	typeCredentials  = "repo-creds"
	argoCertificates = "argocd-tls-certs-cm"
	argoKnownHosts   = "argocd-ssh-known-hosts-cm"
)

// origin is a repository that the application came from.
type origin struct {
	part   string
	source protect.Source // nil where it cannot be read
	err    error          // why not
}

// origins are the git repositories of what had deployed the application, and names their parts in d. They are for Backups in Backstay's own
// namespace: the credentials are others'.
func (b *backup) origins(ctx context.Context, d *point.Deployment) ([]origin, error) {
	if d == nil || b.Repository == nil || b.object.Namespace != b.System {
		return nil, nil
	}
	var all []origin
	for i := range d.Sources {
		s := &d.Sources[i]
		if s.Chart != "" || !isGit(s.URL) {
			continue // recorded only
		}
		o, err := b.origin(ctx, d.Name, s.URL)
		if err != nil {
			return nil, err
		}
		if o.part == "" {
			continue
		}
		s.Part = o.part
		if !slices.ContainsFunc(all, func(other origin) bool { return other.part == o.part }) {
			all = append(all, o)
		}
	}
	return all, nil
}

// isGit reports whether an address may be that of a git server. Paths are this pod's own, and nobody's repositories.
func isGit(address string) bool {
	scheme, rest, is := strings.Cut(address, "://")
	if !is {
		host, path, scp := strings.Cut(address, ":")
		return scp && path != "" && strings.Contains(host, "@") && !strings.Contains(host, "/")
	}
	return rest != "" && slices.Contains([]string{"https", "http", "ssh", "git"}, strings.ToLower(scheme))
}

// origin makes the source of a repository. An error is one after which the work is taken up again.
func (b *backup) origin(ctx context.Context, deployment, address string) (origin, error) {
	plain, err := b.Repository(Repository{URL: address})
	if err != nil {
		return origin{}, nil //nolint:nilerr // it is no address of git's
	}
	o := origin{part: plain.PartName()}
	r, err := b.repository(ctx, deployment, address)
	switch {
	case err != nil && again(ctx, err):
		return o, err
	case err != nil:
		o.err = err
	case r == nil:
		o.part = ""
	default:
		source, err := b.Repository(*r)
		if err != nil {
			o.err = err
		}
		o.source = source
	}
	return o, nil
}

// repository is a repository as what deploys an application opens it; nil for what is no git.
func (w *Worker) repository(ctx context.Context, deployment, address string) (*Repository, error) {
	engine, name, _ := strings.Cut(deployment, "/")
	namespace, called, _ := strings.Cut(name, "/")
	key := types.NamespacedName{Namespace: namespace, Name: called}
	switch engine {
	case v1alpha1.EngineArgoCD:
		return w.argoRepository(ctx, key, address)
	case v1alpha1.EngineFlux:
		return w.fluxRepository(ctx, key, address)
	}
	return &Repository{URL: address}, nil
}

// capture writes the repository into the point.
func (o origin) capture(ctx context.Context, to point.Sink) error {
	if o.err == nil {
		return o.source.Capture(ctx, to)
	}
	w, err := to.Part(ctx, o.part, point.KindGit)
	if err != nil {
		return err
	}
	return w.Fail(ctx, o.err)
}

// argoRepository is a repository as Argo CD opens it: by the Secret of the repository, else by that of the longest beginning of its URL. Nil
// for what is no git.
func (w *Worker) argoRepository(ctx context.Context, application types.NamespacedName, address string) (*Repository, error) {
	op := "find the credentials of " + withoutCredentials(address)
	namespace, project, err := w.argoHome(ctx, application)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	var secrets corev1.SecretList
	if err := w.Cluster.Client.List(ctx, &secrets, client.InNamespace(namespace), client.HasLabels{labelSecretType}); err != nil {
		return nil, fault.Wrap(op, kube.ClassOf(err), err, "")
	}
	own, lent := chooseSecrets(secrets.Items, address, project)
	r := &Repository{URL: address}
	if own != nil {
		if kind := value(own, "type"); kind != "" && kind != "git" {
			return nil, nil //nolint:nilnil // it is no git
		}
		r.LFS = value(own, "enableLfs") == "true"
	}
	for _, secret := range []*corev1.Secret{own, lent} {
		if secret == nil || !opens(secret) {
			continue
		}
		if err := r.open(secret); err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
		break
	}
	if own != nil && (value(own, "insecure") == "true" || value(own, "insecureIgnoreHostKey") == "true") {
		r.Insecure = true
	}
	return r, w.argoTrust(ctx, namespace, r)
}

// argoHome is the namespace of the Argo CD that an Application is of, which has its project and the Secrets, and the project.
func (w *Worker) argoHome(ctx context.Context, application types.NamespacedName) (namespace, project string, _ error) {
	app, projects := &unstructured.Unstructured{}, &unstructured.UnstructuredList{}
	app.SetGroupVersionKind(schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "Application"})
	projects.SetGroupVersionKind(schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "AppProjectList"})
	if err := w.Cluster.Client.Get(ctx, application, app); err != nil {
		return "", "", fault.Wrap("read Application "+application.String(), kube.ClassOf(err), err, "")
	}
	project, _, _ = unstructured.NestedString(app.Object, "spec", "project") // empty where it is none
	project = cmp.Or(project, "default")
	if err := w.Cluster.Client.List(ctx, projects); err != nil && !meta.IsNoMatchError(err) {
		return "", "", fault.Wrap("list projects of Argo CD", kube.ClassOf(err), err, "")
	}
	var homes []string
	for _, p := range projects.Items {
		if p.GetName() == project {
			homes = append(homes, p.GetNamespace())
		}
	}
	if len(homes) == 0 || slices.Contains(homes, application.Namespace) {
		return application.Namespace, project, nil
	}
	if len(homes) > 1 {
		return "", "", fault.New("find the Argo CD of Application "+application.String(), fault.ErrUnsupported, "several have a project "+project, "")
	}
	return homes[0], project, nil
}

// chooseSecrets are the Secret of a repository and the one that lends to all whose URL begins so, the longest first. A Secret of another
// project is none.
func chooseSecrets(secrets []corev1.Secret, address, project string) (own, lent *corev1.Secret) {
	want := normal(address)
	for i := range secrets {
		s := &secrets[i]
		of, at := value(s, "project"), normal(value(s, "url"))
		if of != "" && of != project || at == "" {
			continue
		}
		switch s.Labels[labelSecretType] {
		case typeRepository:
			if at == want && (own == nil || of != "") {
				own = s
			}
		case typeCredentials:
			if within(want, at) && (lent == nil || len(at) > len(normal(value(lent, "url")))) {
				lent = s
			}
		}
	}
	return own, lent
}

// normal is an address as Argo CD compares it: in small letters, without credentials and .git, host:path as of ssh.
func normal(address string) string {
	address = strings.ToLower(strings.TrimSpace(address))
	if !strings.Contains(address, "://") && strings.Contains(address, "@") {
		address = "ssh://" + strings.Replace(address, ":", "/", 1)
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return ""
	}
	if u.Scheme != "ssh" {
		u.User = nil
	}
	return strings.TrimSuffix(strings.TrimSuffix(u.String(), "/"), ".git")
}

// within reports whether an address begins with another, of the same host: what opens git.example is not for git.example.net.
func within(address, prefix string) bool {
	rest, begins := strings.CutPrefix(address, prefix)
	if !begins {
		return false
	}
	_, afterScheme, _ := strings.Cut(prefix, "://")
	return rest == "" || rest[0] == '/' || strings.Contains(afterScheme, "/")
}

func value(s *corev1.Secret, key string) string { return strings.TrimSpace(string(s.Data[key])) }

// opens reports whether a Secret has credentials.
func opens(s *corev1.Secret) bool {
	return slices.ContainsFunc([]string{
		"username", "password", "bearerToken", "sshPrivateKey", "identity", "githubAppPrivateKey", "tlsClientCertData", "tls.crt",
		"gcpServiceAccountKey",
	}, func(key string) bool { return len(s.Data[key]) > 0 })
}

// open takes what opens the repository out of a Secret of Argo CD or of Flux.
func (r *Repository) open(s *corev1.Secret) error {
	op := fmt.Sprintf("read secret %s/%s", s.Namespace, s.Name)
	for _, key := range []string{"tlsClientCertData", "tls.crt", "gcpServiceAccountKey"} {
		if len(s.Data[key]) > 0 {
			return fault.New(op, fault.ErrUnsupported, "it has "+key+", with which Backstay opens nothing", "a user name and a token, an ssh key and apps of GitHub are known")
		}
	}
	r.Username, r.Password = value(s, "username"), fault.Secret(cmp.Or(value(s, "password"), value(s, "bearerToken")))
	if key := cmp.Or(value(s, "sshPrivateKey"), value(s, "identity")); key != "" {
		r.SSHKey = fault.Secret(key + "\n")
	}
	if key := value(s, "githubAppPrivateKey"); key != "" {
		id, err := strconv.ParseInt(value(s, "githubAppID"), 10, 64)
		installation, err2 := strconv.ParseInt(value(s, "githubAppInstallationID"), 10, 64)
		if err != nil || err2 != nil {
			return fault.New(op, fault.ErrInvalid, "githubAppID and githubAppInstallationID are no numbers", "")
		}
		site := cmp.Or(value(s, "githubAppEnterpriseBaseUrl"), value(s, "githubAppBaseURL"))
		r.App = &GitHubApp{ID: id, InstallationID: installation, PrivateKey: fault.Secret(key), URL: strings.TrimSuffix(strings.TrimSuffix(site, "/"), "/api/v3")}
	}
	return nil
}

// argoTrust reads the certificates and host keys that Argo CD trusts for a repository.
func (w *Worker) argoTrust(ctx context.Context, namespace string, r *Repository) error {
	u, err := url.Parse(normal(r.URL))
	if err != nil {
		return fault.New("repository", fault.ErrInvalid, "it has no address", "")
	}
	read := func(name string) (map[string]string, error) {
		var m corev1.ConfigMap
		err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &m)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return m.Data, fault.Wrap(fmt.Sprintf("read configmap %s/%s", namespace, name), kube.ClassOf(err), err, "")
	}
	certificates, err := read(argoCertificates)
	if err != nil {
		return err
	}
	r.CA = cmp.Or(certificates[u.Host], certificates[u.Hostname()])
	if u.Scheme != "ssh" {
		return nil
	}
	hosts, err := read(argoKnownHosts)
	r.KnownHosts = hosts["ssh_known_hosts"]
	return err
}

// fluxRepository is a repository as Flux opens it: by the Secret that its GitRepository names. Nil for what is no git.
func (w *Worker) fluxRepository(ctx context.Context, kustomization types.NamespacedName, address string) (*Repository, error) {
	op := "find the credentials of " + withoutCredentials(address)
	k, repository := &unstructured.Unstructured{}, &unstructured.Unstructured{}
	k.SetGroupVersionKind(schema.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"})
	repository.SetGroupVersionKind(schema.GroupVersionKind{Group: "source.toolkit.fluxcd.io", Version: "v1", Kind: "GitRepository"})
	if err := w.Cluster.Client.Get(ctx, kustomization, k); err != nil {
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return nil, nil //nolint:nilnil // a HelmRelease: of charts
		}
		return nil, fault.Wrap(op, kube.ClassOf(err), err, "")
	}
	ref, _, _ := unstructured.NestedStringMap(k.Object, "spec", "sourceRef") // empty where it is none
	if ref["kind"] != "GitRepository" {
		return nil, nil //nolint:nilnil // it is no git
	}
	key := types.NamespacedName{Namespace: cmp.Or(ref["namespace"], kustomization.Namespace), Name: ref["name"]}
	if err := w.Cluster.Client.Get(ctx, key, repository); err != nil {
		return nil, fault.Wrap(op, kube.ClassOf(err), err, "")
	}
	r := &Repository{URL: address}
	named, _, _ := unstructured.NestedString(repository.Object, "spec", "secretRef", "name") // empty for none
	if named == "" {
		return r, nil
	}
	var secret corev1.Secret
	if err := w.Cluster.Client.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: named}, &secret); err != nil {
		return nil, fault.Wrap(op, kube.ClassOf(err), err, "")
	}
	if err := r.open(&secret); err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	r.CA, r.KnownHosts = cmp.Or(value(&secret, "ca.crt"), value(&secret, "caFile")), value(&secret, "known_hosts")
	return r, nil
}
