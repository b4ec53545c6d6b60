package kando

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// maxProfile bounds the JSON of a profile, in bytes; Kubernetes keeps no larger Secret.
const maxProfile = 1 << 20

// Document is a profile with its credentials, as commands of Blueprints hand it to kando. Published profiles write the same names with
// capitals, which is as good.
type Document struct {
	Location      Location   `json:"location"`
	Credential    Credential `json:"credential"`
	SkipSSLVerify bool       `json:"skipSSLVerify,omitempty"`
	Vault         *Vault     `json:"vault,omitempty"` // where Credential.Type is "vault"
}

// Types of locations.
const (
	TypeS3    = "s3Compliant"
	TypeGCS   = "gcs"
	TypeAzure = "azure"
	TypeKopia = "kopia"
)

// Location is where a profile leads.
type Location struct {
	Type     string `json:"type"`
	Bucket   string `json:"bucket,omitempty"`
	Endpoint string `json:"endpoint,omitempty"` // URL; "" for the provider's own
	Prefix   string `json:"prefix,omitempty"`
	Region   string `json:"region,omitempty"`
}

// Types of credentials.
const (
	CredentialKeyPair = "keyPair"
	CredentialSecret  = "secret"
	CredentialKopia   = "kopia"
	CredentialFile    = "file"  // the document is in a file
	CredentialVault   = "vault" // the document has a Vault
)

// Credential is who asks.
type Credential struct {
	Type              string       `json:"type"`
	Path              string       `json:"path,omitempty"` // of the file, where Type is "file"
	KeyPair           *KeyPair     `json:"keyPair,omitempty"`
	Secret            *Secret      `json:"secret,omitempty"`
	KopiaServerSecret *KopiaServer `json:"kopiaServerSecret,omitempty"`
}

// KeyPair is an access key and its secret. For Google Cloud it is a project and the JSON of a service account, for Azure an account and its
// key.
type KeyPair struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

// Secret is a Secret of Kubernetes of one of the types that profiles name.
type Secret struct {
	Type string            `json:"type"`
	Data map[string][]byte `json:"data"`
}

// KopiaServer is an account on a kopia API server.
type KopiaServer struct {
	Username       string         `json:"username"`
	Hostname       string         `json:"hostname"`
	Password       string         `json:"password"`
	Cert           string         `json:"cert"` // PEM
	ConnectOptions map[string]int `json:"connectOptions,omitempty"`
}

// Vault is a vault of Backstay, and what is to become of what is pushed.
type Vault struct {
	URL      string `json:"url"`
	Password string `json:"password"`
	// OtherPassword opens it before or after its password is changed; "" where that is not under way.
	OtherPassword string            `json:"otherPassword,omitempty"`
	Credentials   map[string]string `json:"credentials,omitempty"` // by the names of the environment variables that vaults take them from
	Subject       point.Subject     `json:"subject"`
	Policy        string            `json:"policy,omitempty"`
	Part          string            `json:"part,omitempty"`  // below which parts are named
	Mark          string            `json:"mark,omitempty"`  // of the capture that a push is a shard of; "": each push is a point of its own
	Point         string            `json:"point,omitempty"` // id of the point that is being restored
}

const profileHint = "give --profile JSON, --profile @FILE, or set KANDO_PROFILE or KANDO_PROFILE_FILE"

// readProfile finds the profile: what the flag says, else what the environment says.
func readProfile(flag string, env func(string) string) (*Document, error) {
	for _, given := range []string{flag, env("KANDO_PROFILE")} {
		if given = strings.TrimSpace(given); given != "" {
			return profileFrom(given)
		}
	}
	if file := env("KANDO_PROFILE_FILE"); file != "" {
		return profileIn(file)
	}
	return nil, fault.New("read profile", fault.ErrInvalid, "none is given", profileHint)
}

// profileFrom reads a profile that is given as JSON, or as the name of its file.
func profileFrom(given string) (*Document, error) {
	if !strings.HasPrefix(given, "{") {
		return profileIn(strings.TrimPrefix(given, "@"))
	}
	d, err := decodeProfile([]byte(given))
	if err != nil {
		return nil, err
	}
	if d.Credential.Type != CredentialFile {
		return d, nil
	}
	return profileIn(d.Credential.Path)
}

func profileIn(file string) (*Document, error) {
	op := "read profile " + file
	f, err := os.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.Wrap(op, fault.ErrNotFound, err, "")
	case err != nil:
		return nil, fault.Wrap(op, fault.ErrDenied, err, "")
	}
	defer f.Close() //nolint:errcheck // opened for reading
	b, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return nil, fault.Wrap(op, fault.ErrUnavailable, err, "")
	}
	d, err := decodeProfile(b)
	if err == nil && d.Credential.Type == CredentialFile {
		err = fault.New("", fault.ErrInvalid, "it names another file", "")
	}
	return d, fault.Wrap(op, nil, err, "")
}

// decodeProfile reads the JSON of a profile. Its errors quote nothing of it: that may be a secret.
func decodeProfile(b []byte) (*Document, error) {
	if len(b) > maxProfile {
		return nil, fault.New("profile", fault.ErrInvalid, "it is too long", "")
	}
	var d Document
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fault.New("profile", fault.ErrInvalid, "it is not the JSON of a profile", profileHint)
	}
	return &d, nil
}

// secrets are what must not show in what is said.
func (d *Document) secrets() []fault.Secret {
	var all []fault.Secret
	add := func(s string) { all = append(all, fault.Secret(s)) }
	if k := d.Credential.KeyPair; k != nil {
		add(k.Secret)
	}
	if s := d.Credential.Secret; s != nil {
		for _, value := range s.Data {
			add(string(value))
		}
	}
	if k := d.Credential.KopiaServerSecret; k != nil {
		add(k.Password)
	}
	if v := d.Vault; v != nil {
		add(v.Password)
		for _, value := range v.Credentials {
			add(value)
		}
	}
	return all
}

// quiet is an error whose text names no secret, should a library have brought one along.
type quiet struct {
	error
	text string
}

func (q quiet) Error() string { return q.text }
func (q quiet) Unwrap() error { return q.error }

// redact takes the profile's secrets out of what err says.
func (d *Document) redact(err error) error {
	if err == nil {
		return nil
	}
	text := fault.Redact(err.Error(), d.secrets()...)
	if text == err.Error() {
		return err
	}
	return quiet{err, text}
}
