package function

import (
	"encoding/json"
	"fmt"
	"path"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// Fields of a profile's credential where that is a Secret, as published.
const (
	fieldAWSKey       = "aws_access_key_id"
	fieldAWSSecret    = "aws_secret_access_key"
	fieldAWSToken     = "aws_session_token"
	fieldAWSRole      = "role"
	fieldAzureAccount = "azure_storage_account_id"
	fieldAzureKey     = "azure_storage_key"
	fieldGoogleID     = "gcp_project_id"
	fieldGoogleFile   = "service-account.json"
)

// profileOf is the profile of a call with its credentials, which templates may see the path of only.
func profileOf(p *blueprint.Params) (blueprint.ProfileParams, error) {
	const op = "read the profile"
	switch {
	case p.Profile == nil:
		return blueprint.ProfileParams{}, fault.New(op, fault.ErrInvalid, "the ActionSet names none", "give its action a profile")
	case p.ProfileFile == nil:
		return *p.Profile, nil
	}
	var document blueprint.ProfileDocument
	if err := json.Unmarshal(p.ProfileFile.Content, &document); err != nil {
		return blueprint.ProfileParams{}, fault.New(op, fault.ErrInvalid, "its file holds none", "") // the cause might show a secret
	}
	return document.ProfileParams, nil
}

// repositoryOf is the restic repository below a prefix, in the bucket of the profile.
func repositoryOf(p *blueprint.Params, prefix, key string, insecureTLS bool) (repository, error) {
	profile, err := profileOf(p)
	if err != nil {
		return repository{}, err
	}
	l := profile.Location
	within, err := inBucket(l.Bucket, prefix)
	if err != nil {
		return repository{}, err
	}
	url, err := repositoryURL(l, within)
	if err != nil {
		return repository{}, err
	}
	r := repository{path: path.Join(l.Bucket, within), url: url, password: fault.Secret(key), insecureTLS: insecureTLS || profile.SkipSSLVerify}
	err = r.take(profile)
	return r, fault.Wrap("read the profile", nil, err, "")
}

// take finds the credentials that restic needs in a profile.
func (r *repository) take(profile blueprint.ProfileParams) error {
	id, secret, err := pairOf(profile)
	if err != nil {
		return err
	}
	switch profile.Location.Type {
	case blueprint.LocationGCS:
		r.googleFile = secret
		r.settings = []variable{{"GOOGLE_PROJECT_ID", id}}
	case blueprint.LocationAzure:
		r.credentials = []variable{{"AZURE_ACCOUNT_NAME", id}, {"AZURE_ACCOUNT_KEY", secret.Reveal()}}
	default:
		r.credentials = []variable{{"AWS_ACCESS_KEY_ID", id}, {"AWS_SECRET_ACCESS_KEY", secret.Reveal()}}
		if s := profile.Credential.Secret; s != nil && len(s.Data[fieldAWSToken]) > 0 {
			r.credentials = append(r.credentials, variable{"AWS_SESSION_TOKEN", string(s.Data[fieldAWSToken])})
		}
		if profile.Location.Region != "" {
			r.settings = []variable{{"AWS_DEFAULT_REGION", profile.Location.Region}}
		}
	}
	return nil
}

// pairOf is who uses a profile's location, and what proves it.
func pairOf(profile blueprint.ProfileParams) (id string, secret fault.Secret, err error) {
	of := profile.Credential
	switch {
	case of.Type == blueprint.CredentialKeyPair && of.KeyPair != nil:
		id, secret = of.KeyPair.ID, fault.Secret(of.KeyPair.Secret)
	case of.Type == blueprint.CredentialSecret && of.Secret != nil:
		if len(of.Secret.Data[fieldAWSRole]) > 0 {
			return "", "", fault.New("", fault.ErrUnsupported, "restic takes no role to assume", "give the profile keys of its own")
		}
		names := map[string][2]string{
			blueprint.LocationS3:    {fieldAWSKey, fieldAWSSecret},
			blueprint.LocationAzure: {fieldAzureAccount, fieldAzureKey},
			blueprint.LocationGCS:   {fieldGoogleID, fieldGoogleFile},
		}[profile.Location.Type]
		id, secret = string(of.Secret.Data[names[0]]), fault.Secret(of.Secret.Data[names[1]])
	default:
		return "", "", fault.New("", fault.ErrUnsupported, fmt.Sprintf("credential of type %q", of.Type), "")
	}
	if id == "" || secret == "" {
		return "", "", fault.New("", fault.ErrInvalid, "its credential is empty", "")
	}
	return id, secret, nil
}
