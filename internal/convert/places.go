package convert

import (
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backstay/backstay/api/v1alpha1"
)

// bucket is where another tool keeps its data.
type bucket struct {
	scheme, name, prefix string
	options              url.Values
}

// url is a place beside the other tool's data, never within it.
func (b bucket) url() string {
	prefix := strings.Trim(b.prefix, "/")
	if prefix != "" {
		prefix += "-"
	}
	u := url.URL{Scheme: b.scheme, Host: b.name, Path: "/" + prefix + "backstay", RawQuery: b.options.Encode()}
	return u.String()
}

// endpoint adds a store's own address to the options: a URL, or HOST:PORT.
func (b bucket) endpoint(v *value) {
	raw := v.text()
	if raw == "" {
		return
	}
	host, plain := strings.CutPrefix(raw, "http://")
	host = strings.TrimPrefix(host, "https://")
	host = strings.TrimRight(host, "/")
	if host == "" || strings.ContainsAny(host, "/?#@ ") {
		v.dropped("a host is expected")
		return
	}
	b.options.Set("endpoint", host)
	if plain {
		b.options.Set("tls", "false")
	}
	v.kept("spec.url")
}

// makeLocation writes a Location. Secrets are keys of Secrets of its namespace, as NAME and KEY, by the names that credentials have.
func (c *conversion) makeLocation(s *source, b bucket, credentials map[string]v1alpha1.Secret) {
	version, name := c.meta(s, v1alpha1.KindLocation)
	l := &v1alpha1.Location{
		TypeMeta:   metav1.TypeMeta{APIVersion: version, Kind: v1alpha1.KindLocation},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace},
		Spec:       v1alpha1.LocationSpec{URL: b.url(), Password: key(vaultSecret(name), "password"), Credentials: credentials},
	}
	c.locations = append(c.locations, made[*v1alpha1.Location]{s.String(), l})
}

// vaultSecret is the Secret that belongs to a Location.
func vaultSecret(location string) string { return fit("vault-" + location) }

func key(name, key string) v1alpha1.Secret {
	return v1alpha1.Secret{SecretKeyRef: &v1alpha1.SecretKeyRef{Name: name, Key: key}}
}

// makeSecret asks for the Secret of a Location, with more keys than the vault's password.
func (c *conversion) makeSecret(location, more string) {
	c.step("kubectl -n %s create secret generic %s --from-literal=password=\"$(openssl rand -base64 24)\"%s   # keep a copy of the password elsewhere",
		c.namespace, vaultSecret(location), more)
}

// copySecret asks for a copy of another tool's Secret in Backstay's namespace.
func (c *conversion) copySecret(namespace, name string) {
	if fit(name) != name || fit(namespace) != namespace || namespace == c.namespace {
		return
	}
	c.step("kubectl -n %s get secret %s -o json | jq '{apiVersion, kind, type, data, metadata: {name: .metadata.name}}' | kubectl -n %s apply -f -",
		namespace, name, c.namespace)
}
