package blueprint

import (
	"cmp"
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
)

// profile reads the Profile of an action with its credentials, and has them come by file where the Blueprint lets them.
func (r resolving) profile(ctx context.Context, ref *ObjectReference, b *Blueprint, o ResolveOptions, p *Params) error {
	document, err := r.profileDocument(ctx, ref, o)
	if err != nil || document == nil {
		return err
	}
	p.Profile = &ProfileParams{Location: document.Location, Credential: document.Credential, SkipSSLVerify: document.SkipSSLVerify}
	if document.Vault == nil && o.Profile == nil && b.Annotations[AnnotationProfile] != CredentialFile {
		return nil
	}
	p.Profile.Credential = CredentialParams{Type: CredentialFile}
	p.ProfileFile, err = document.File("") // the path is the phase's
	return err
}

func (r resolving) profileDocument(ctx context.Context, ref *ObjectReference, o ResolveOptions) (*ProfileDocument, error) {
	if o.Profile != nil || ref == nil || ref.Name == "" {
		return o.Profile, nil
	}
	key := client.ObjectKey{Namespace: cmp.Or(ref.Namespace, r.set.Namespace), Name: ref.Name}
	op := fmt.Sprintf("profile %s", key)
	if o.Confined && key.Namespace != r.set.Namespace {
		return nil, fault.New(op, fault.ErrDenied, "it is of another namespace than the ActionSet", "make a Profile in "+r.set.Namespace)
	}
	var profile Profile
	if err := r.client.Get(ctx, key, &profile); err != nil {
		return nil, classed("read "+op, err)
	}
	if location := profile.Annotations[AnnotationLocation]; location != "" {
		if o.Vault == nil {
			return nil, fault.New(op, fault.ErrUnsupported, "it stands for Location "+location+", which cannot be reached here", "")
		}
		vault, err := o.Vault(ctx, profile.Namespace, location)
		if err != nil {
			return nil, fault.Wrap(op, nil, err, "")
		}
		return VaultProfile(vault), nil
	}
	profiles := resolving{r.client, &ActionSet{ObjectMeta: profile.ObjectMeta}} // its Secrets are of its namespace if nothing is said
	credential, err := profiles.credential(ctx, profile.Credential)
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	return &ProfileDocument{ProfileParams: ProfileParams{profile.Location, *credential, profile.SkipSSLVerify}}, nil
}

// VaultProfile is a vault as a Profile. Its location's type is the one whose artifacts are ids of snapshots, as a vault's are.
func VaultProfile(v *VaultDocument) *ProfileDocument {
	return &ProfileDocument{
		ProfileParams: ProfileParams{Location: ProfileLocation{Type: LocationKopia}, Credential: CredentialParams{Type: CredentialVault}},
		Vault:         v,
	}
}

func (r resolving) credential(ctx context.Context, c Credential) (*CredentialParams, error) {
	missing := func(what string) error { return fault.New("credential", fault.ErrInvalid, "it has no "+what, "") }
	found := &CredentialParams{Type: c.Type}
	switch c.Type {
	case CredentialKeyPair:
		if c.KeyPair == nil {
			return nil, missing("keyPair")
		}
		id, err := r.field(ctx, c.KeyPair.Secret, c.KeyPair.IDField)
		if err != nil {
			return nil, err
		}
		secret, err := r.field(ctx, c.KeyPair.Secret, c.KeyPair.SecretField)
		if err != nil {
			return nil, err
		}
		found.KeyPair = &KeyPairParams{ID: id, Secret: secret}
	case CredentialSecret:
		if c.Secret == nil {
			return nil, missing("secret")
		}
		found.Secret = &corev1.Secret{}
		if err := r.get(ctx, "secret", *c.Secret, found.Secret); err != nil {
			return nil, err
		}
	case CredentialKopia:
		k := c.KopiaServerSecret
		if k == nil || k.UserPassphrase == nil || k.UserPassphrase.Secret == nil || k.TLSCert == nil || k.TLSCert.Secret == nil {
			return nil, missing("kopiaServerSecret with userPassphrase and tlsCert")
		}
		password, err := r.field(ctx, *k.UserPassphrase.Secret, k.UserPassphrase.Key)
		if err != nil {
			return nil, err
		}
		cert, err := r.field(ctx, *k.TLSCert.Secret, k.TLSCert.Key)
		if err != nil {
			return nil, err
		}
		found.KopiaServerSecret = &KopiaServerParams{
			Username: k.Username, Hostname: k.Hostname, Password: password, Cert: cert, ConnectOptions: k.ConnectOptions,
		}
	default:
		return nil, fault.New("credential", fault.ErrInvalid, fmt.Sprintf("type %q is none", c.Type), "keyPair, secret or kopia")
	}
	return found, nil
}

// field reads a field of a Secret.
func (r resolving) field(ctx context.Context, ref ObjectReference, key string) (string, error) {
	var secret corev1.Secret
	if err := r.get(ctx, "secret", ref, &secret); err != nil {
		return "", err
	}
	value, found := secret.Data[key]
	if !found {
		return "", fault.New(fmt.Sprintf("secret %s/%s", secret.Namespace, secret.Name), fault.ErrNotFound, fmt.Sprintf("it has no key %q", key), "")
	}
	return string(value), nil
}
