package function

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// publishedPassword is that of repositories whose Blueprint names no encryptionKey: it is the original's, and everybody knows it.
const publishedPassword = "9f735e0df9a1ddc702bf0a1a7b83033f9f7153a00c29de82cedadc9957289b05"

// repository is where a restic repository is, and what opens it.
type repository struct {
	path        string // bucket and prefix
	url         string
	password    fault.Secret
	credentials []variable // secret
	settings    []variable // not secret
	// googleFile is what the variable GOOGLE_APPLICATION_CREDENTIALS shall name a file of; empty for other providers.
	googleFile  fault.Secret
	insecureTLS bool
}

// variable is one of restic's environment.
type variable struct {
	name  string
	value string
}

// inBucket is a prefix within its bucket. The bucket may stand before it already, as the published functions have it.
func inBucket(bucket, prefix string) (string, error) {
	const op = "find the repository"
	if bucket == "" {
		return "", fault.New(op, fault.ErrInvalid, "the profile names no bucket", "")
	}
	elements := strings.Split(prefix, "/")
	if slices.Contains(elements, "..") {
		return "", fault.New(op, fault.ErrInvalid, fmt.Sprintf("prefix %q leads out of the bucket", prefix), "")
	}
	if elements[0] == bucket {
		elements = elements[1:]
	}
	return path.Join(elements...), nil
}

// repositoryURL is how restic names a place in a bucket.
func repositoryURL(l blueprint.ProfileLocation, within string) (string, error) {
	switch l.Type {
	case blueprint.LocationS3:
		endpoint := l.Endpoint
		if endpoint == "" {
			endpoint = "s3.amazonaws.com"
		}
		return "s3:" + strings.TrimRight(endpoint, "/") + "/" + path.Join(l.Bucket, within), nil
	case blueprint.LocationGCS:
		return "gs:" + l.Bucket + ":/" + within, nil
	case blueprint.LocationAzure:
		return "azure:" + l.Bucket + ":/" + within, nil
	}
	return "", fault.New("find the repository", fault.ErrUnsupported, fmt.Sprintf("restic stores nothing in a location of type %q", l.Type),
		"use a profile of type s3Compliant, gcs or azure, or a Blueprint with kando")
}

// script runs restic with these arguments. A script that arrives cut off does nothing: it all stands in one function.
func (r repository) script(args []string) (string, error) {
	var s strings.Builder
	s.WriteString("main() {\numask 077\n")
	set := func(name, value string) { fmt.Fprintf(&s, "export %s=%s\n", name, quoted(value)) }
	set("RESTIC_REPOSITORY", r.url)
	set("RESTIC_PASSWORD", r.password.Reveal())
	for _, v := range slices.Concat(r.credentials, r.settings) {
		set(v.name, v.value)
	}
	if r.googleFile != "" {
		// restic takes these by file alone. Where there is no rm the file ends with its pod, empty.
		fmt.Fprintf(&s, "dir=/dev/shm; [ -w $dir ] || dir=/tmp\nfile=$dir/backstay-$$.json\n"+
			"trap 'rm -f \"$file\" 2>/dev/null || : >\"$file\"' EXIT\n"+
			"set -C; printf %%s %s >\"$file\" || return; set +C\n"+
			"export GOOGLE_APPLICATION_CREDENTIALS=\"$file\"\n", quoted(r.googleFile.Reveal()))
	}
	s.WriteString("restic")
	for _, a := range r.flags(args) {
		s.WriteString(" " + quoted(a))
	}
	s.WriteString(" </dev/null\n}\nmain\nexit\n")
	if strings.ContainsRune(s.String(), 0) {
		return "", fault.New("run restic", fault.ErrInvalid, "an argument or credential holds a zero byte", "")
	}
	return s.String(), nil
}

// flags are the arguments with those that each command gets.
func (r repository) flags(args []string) []string {
	if !r.insecureTLS {
		return args
	}
	return slices.Insert(slices.Clone(args), 1, "--insecure-tls")
}

// redact masks what opens the repository.
func (r repository) redact(text string) string {
	secrets := []fault.Secret{r.googleFile, r.password}
	for _, v := range r.credentials {
		secrets = append(secrets, fault.Secret(v.value))
	}
	return fault.Redact(text, slices.DeleteFunc(secrets, func(s fault.Secret) bool { return s == "" })...)
}

// quoted is text as one word of a shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
