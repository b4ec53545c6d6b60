package function

import (
	"fmt"
	"net/http"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/rds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// Where credentials of AWS come from, as published.
const (
	sourceProfile        = "profile"
	sourceSecret         = "secret"
	sourceServiceAccount = "eks_service_account"
)

// awsAttempts is how often a call is made that AWS has no time for.
const awsAttempts = 10

// awsKeys are credentials of AWS, with a role to assume where one is named.
type awsKeys struct {
	id, secret, token fault.Secret
	role              string
}

// client is a client of RDS with the credentials that a call's arguments choose.
func (d databases) client(c blueprint.Call, a *reader) (*rds.Client, error) {
	const op = "read the credentials of AWS"
	source, name, region := a.textOr("credentialsSource", sourceProfile), a.text("credentialsSecret"), a.text("region")
	if a.err != nil {
		return nil, a.err
	}
	var keys awsKeys
	var err error
	switch source {
	case sourceProfile:
		var profile blueprint.ProfileParams
		if profile, err = profileOf(c.Params); err == nil {
			region = firstOf(region, profile.Location.Region)
			keys, err = keysOfProfile(profile)
		}
	case sourceSecret:
		keys, err = keysNamed(c.Params, name)
	case sourceServiceAccount:
		return d.clientOfAccount(c, region)
	default:
		err = fault.New("argument credentialsSource", fault.ErrInvalid, fmt.Sprintf("there is no source %.40q", source), "")
	}
	if err != nil {
		return nil, fault.Wrap(op, nil, err, "")
	}
	if region == "" {
		return nil, fault.New(op, fault.ErrInvalid, "no region is named", "give the argument region, or the profile one")
	}
	var provider aws.CredentialsProvider = credentials.NewStaticCredentialsProvider(keys.id.Reveal(), keys.secret.Reveal(), keys.token.Reveal())
	if keys.role != "" {
		provider = stscreds.NewAssumeRoleProvider(d.tokens(region, provider), keys.role)
	}
	return d.connect(region, provider), nil
}

// clientOfAccount has the rights that the process's own service account has at AWS. They are for Backstay's own namespace.
func (d databases) clientOfAccount(c blueprint.Call, region string) (*rds.Client, error) {
	const op = "read the credentials of AWS"
	if c.Namespace != d.o.System {
		return nil, fault.New(op, fault.ErrDenied, "the service account's are for ActionSets in Backstay's own namespace", "use a profile or a Secret")
	}
	role, file := os.Getenv("AWS_ROLE_ARN"), os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE")
	region = firstOf(region, os.Getenv("AWS_REGION"))
	if role == "" || file == "" || region == "" {
		return nil, fault.New(op, fault.ErrInvalid, "the service account has no role at AWS", "")
	}
	tokens := d.tokens(region, aws.AnonymousCredentials{})
	return d.connect(region, stscreds.NewWebIdentityRoleProvider(tokens, role, stscreds.IdentityTokenFile(file))), nil
}

func (d databases) connect(region string, provider aws.CredentialsProvider) *rds.Client {
	o := rds.Options{
		Region: region, Credentials: aws.NewCredentialsCache(provider), RetryMaxAttempts: awsAttempts, HTTPClient: &http.Client{Timeout: awsPatience},
	}
	if d.endpoint != "" {
		o.BaseEndpoint = &d.endpoint
	}
	return rds.New(o)
}

func (d databases) tokens(region string, provider aws.CredentialsProvider) *sts.Client {
	o := sts.Options{
		Region: region, Credentials: provider, RetryMaxAttempts: awsAttempts, HTTPClient: &http.Client{Timeout: awsPatience},
	}
	if d.endpoint != "" {
		o.BaseEndpoint = &d.endpoint
	}
	return sts.New(o)
}

// keysOfProfile are those of a profile, whatever its location is.
func keysOfProfile(profile blueprint.ProfileParams) (awsKeys, error) {
	of := profile.Credential
	switch {
	case of.Type == blueprint.CredentialKeyPair && of.KeyPair != nil:
		return awsKeys{id: fault.Secret(of.KeyPair.ID), secret: fault.Secret(of.KeyPair.Secret)}.whole()
	case of.Type == blueprint.CredentialSecret && of.Secret != nil:
		return keysOf(*of.Secret)
	}
	return awsKeys{}, fault.New("", fault.ErrUnsupported, fmt.Sprintf("the profile's credential is of type %q", of.Type), "name a Secret by credentialsSecret")
}

// keysNamed are those of a Secret that the action or the phase names.
func keysNamed(p *blueprint.Params, name string) (awsKeys, error) {
	if secret, is := p.Secrets[name]; is {
		return keysOf(secret)
	}
	if p.CurrentPhase != nil {
		if secret, is := p.CurrentPhase.Secrets[name]; is {
			return keysOf(secret)
		}
	}
	return awsKeys{}, fault.New("argument credentialsSecret", fault.ErrInvalid, fmt.Sprintf("neither action nor phase has a Secret %.70q", name), "")
}

func keysOf(secret corev1.Secret) (awsKeys, error) {
	get := func(name string) fault.Secret { return fault.Secret(secret.Data[name]) }
	return awsKeys{id: get(fieldAWSKey), secret: get(fieldAWSSecret), token: get(fieldAWSToken), role: get(fieldAWSRole).Reveal()}.whole()
}

// whole refuses keys that are empty: AWS's library would look for others.
func (k awsKeys) whole() (awsKeys, error) {
	if k.id == "" || k.secret == "" {
		return awsKeys{}, fault.New("", fault.ErrInvalid, fmt.Sprintf("%s or %s is empty", fieldAWSKey, fieldAWSSecret), "")
	}
	return k, nil
}

// firstOf is the first of two texts that is not empty.
func firstOf(text, otherwise string) string {
	if text != "" {
		return text
	}
	return otherwise
}
