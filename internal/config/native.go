package config

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/policy"
)

// strict is the style of native files: what is not understood is an error, and values are checked as the tags of v1alpha1 say.
type strict struct{}

// didYouMean is the end of a message about a word that is not known.
func didYouMean(word string, known []string) string {
	if c := closest(word, known); c != "" {
		return "; did you mean " + c + "?"
	}
	return ""
}

func (strict) unknown(d *decoder, key *yaml.Node, path string, known []string) {
	parent, _, _ := cutLast(path)
	if hint := didYouMean(key.Value, known); hint != "" {
		d.problem(key, parent, "no such field: %s%s", strconv.Quote(key.Value), hint)
		return
	}
	if key.Value == "value" && slices.Contains(known, "secretKeyRef") {
		d.problem(key, path, "a secret in clear: say where it is, as env, file or command")
		return
	}
	d.problem(key, parent, "no such field: %s; known are %s", shorten(key.Value), strings.Join(sorted(known), ", "))
}

// maxKey is longer than any field's name. What is longer than that is none, and could be a secret in the wrong place.
const maxKey = 24

// shorten quotes a key of a file that could be anything.
func shorten(key string) string {
	if len(key) > maxKey {
		return "(" + strconv.Itoa(len(key)) + " characters)"
	}
	return strconv.Quote(key)
}

// cutLast splits a path at its last field.
func cutLast(path string) (parent, name string, found bool) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

func (strict) null(d *decoder, n *yaml.Node, path string) {
	d.problem(n, path, "says nothing: give it a value, or leave it out")
}

func (strict) scalar(d *decoder, n *yaml.Node, into reflect.Value, path string) {
	switch into.Kind() {
	case reflect.String:
		if n.Tag != "!!str" && n.Tag != "!!timestamp" {
			d.problem(n, path, "read as %s: put it in quotes", tagWords(n.Tag))
			return
		}
		into.SetString(n.Value)
	case reflect.Bool:
		if n.Tag != "!!bool" {
			d.problem(n, path, "true or false is expected")
			return
		}
		into.SetBool(strings.EqualFold(n.Value, "true"))
	default:
		number, err := strconv.ParseInt(n.Value, 10, into.Type().Bits())
		if n.Tag != "!!int" || err != nil {
			d.problem(n, path, "a whole number is expected")
			return
		}
		into.SetInt(number)
	}
}

func tagWords(tag string) string {
	switch tag {
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	default:
		return "no text"
	}
}

// structure checks what the tags of a struct's fields say.
func (strict) structure(d *decoder, n *yaml.Node, of reflect.Value, set map[string]bool, at string) {
	groups := map[string][]string{}
	for _, f := range fieldsOf(of.Type()) {
		if group := f.tag.Get("oneof"); group != "" {
			groups[group] = append(groups[group], f.name)
		}
		value, where := of.FieldByIndex(f.index), join(at, f.name)
		switch {
		case !set[f.name] && f.required:
			d.problem(n, at, "%s is missing", f.name)
		case !set[f.name] || said(d, where):
		case f.required && isBlank(value):
			d.problem(d.where[where], where, "empty")
		default:
			checkValue(d, f, value, where)
		}
	}
	for _, names := range groups {
		given := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !set[name] })
		switch {
		case len(given) == 0:
			d.problem(n, at, "one of these is missing: %s", strings.Join(names, ", "))
		case len(given) > 1:
			d.problem(d.where[join(at, given[1])], at, "only one of %s", strings.Join(given, " and "))
		}
	}
}

// isBlank reports whether a text or list is empty.
func isBlank(v reflect.Value) bool {
	return (v.Kind() == reflect.String || v.Kind() == reflect.Slice) && v.Len() == 0
}

// said reports whether a problem is noted at a path already.
func said(d *decoder, path string) bool {
	return slices.ContainsFunc(d.problems, func(p Problem) bool { return p.Path == path })
}

// checkValue checks a value, or each of a list, by its field's tags.
func checkValue(d *decoder, f field, value reflect.Value, at string) {
	switch value.Kind() {
	case reflect.Slice:
		for i := range value.Len() {
			checkValue(d, f, value.Index(i), at+"["+strconv.Itoa(i)+"]")
		}
	case reflect.String:
		text := value.String()
		if words := f.tag.Get("enum"); words != "" && !said(d, at) {
			if known := strings.Split(words, ","); !slices.Contains(known, text) {
				d.problem(d.node(at), at, "%s is expected%s", list(known), didYouMean(text, known))
			}
		}
		if check := checks(f.tag.Get("check")); check != nil && !said(d, at) {
			if err := check(text); err != nil {
				d.problem(d.node(at), at, "%s", message(err))
			}
		}
	case reflect.Int, reflect.Int64:
		if f.tag.Get("check") == "count" && value.Int() < 0 {
			d.problem(d.node(at), at, "less than 0")
		}
	}
}

// message is an error with its hints: problems have but one line.
func message(err error) string {
	text := err.Error()
	for _, hint := range fault.Hints(err) {
		text += " (" + hint + ")"
	}
	return text
}

var nameFormat = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// checks finds the check of a name that a tag gives; nil for none of text.
func checks(name string) func(string) error {
	switch name {
	case "name":
		return checkName
	case "url", "location":
		return checkURL
	case "span":
		return checkSpan
	case "pointer":
		return form(pointerFormat, "a JSON Pointer is expected: /spec/replicas (in names, ~1 stands for / and ~0 for ~)")
	case "glob":
		return checkGlob
	case "object":
		return form(objectFormat, "KIND.GROUP/NAME is expected: deployment.apps/web, configmap/settings")
	case "objects":
		return form(objectsFormat, "KIND.GROUP/NAME is expected, or KIND.GROUP for all of a kind: deployment.apps/web, configmap")
	case "every":
		return form(everyFormat, "KIND.GROUP/NAME is expected, KIND.GROUP for all of a kind, or * for every object")
	case "kinds":
		return form(kindsFormat, "PLURAL.GROUP is expected, or *.GROUP for all of a group: events.events.k8s.io, *.metrics.k8s.io")
	case "size":
		return func(text string) error { _, err := ParseSize(text); return err }
	case "host":
		return form(hostFormat, "HOST or HOST:PORT is expected: minio.example.com:9000")
	case "deployments":
		return form(deploymentsFormat, "NAME or NAMESPACE/NAME is expected, * for any characters: shop, team-*, argocd/*")
	case "duration":
		return func(text string) error { _, err := policy.ParseDuration(text); return err }
	case "cron":
		return func(text string) error { _, err := policy.ParseSchedule(text, ""); return err }
	case "zone":
		return func(text string) error { _, err := policy.ParseZone(text); return err }
	default:
		return nil
	}
}

func checkName(text string) error {
	if !nameFormat.MatchString(text) {
		return fmt.Errorf("a name has lowercase letters, digits and dashes, at most 63, and neither begins nor ends with a dash")
	}
	return nil
}

// checkURL refuses what no URL may have here: a password, which belongs into a secret.
func checkURL(text string) error {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("a control character in a URL")
	}
	if !strings.Contains(text, "://") {
		return nil // a path, or user@host:path
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("not a URL")
	case u.User != nil && hasPassword(u):
		return fmt.Errorf("a password in a URL: say where it is, as password: {env: NAME}")
	case u.Host == "" && u.Scheme != "file":
		return fmt.Errorf("a URL without a host")
	}
	return nil
}

func hasPassword(u *url.URL) bool {
	_, has := u.User.Password()
	return has
}

// checkGlob reads a pattern as package forge does: *, **, ?, [a-z], and \ before each for the letter itself.
func checkGlob(text string) error {
	if _, err := path.Match(text, ""); err != nil || text == "" {
		return fmt.Errorf("not a glob: * ? and [a-z] are, and \\ before each for the letter itself")
	}
	return nil
}

// Forms of text. The definitions of custom resources have the same.
var (
	pointerFormat = regexp.MustCompile(`^(/([^/~]|~[01])*)+$`)
	objectFormat  = regexp.MustCompile(`^[^*/\s.][^*/\s]*/[^/\s]+$`)
	objectsFormat = regexp.MustCompile(`^[^*/\s.][^*/\s]*(/[^/\s]+)?$`)
	everyFormat   = regexp.MustCompile(`^(\*|[^*/\s.][^*/\s]*(/[^/\s]+)?)$`)
	kindsFormat   = regexp.MustCompile(`^(\*\.)?[^*/\s.][^*/\s]*$`)

	sizeFormat = regexp.MustCompile(`^([1-9][0-9]{0,8})([KMGT])(i?)B?$`)
	hostFormat = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?$`)

	deploymentsFormat = regexp.MustCompile(`^[^/\s]+(/[^/\s]+)?$`)
)

// form checks text against a pattern, and says what is expected.
func form(format *regexp.Regexp, expected string) func(string) error {
	return func(text string) error {
		if !format.MatchString(text) {
			return errors.New(expected)
		}
		return nil
	}
}

func checkSpan(text string) error {
	if span, err := time.ParseDuration(text); err != nil || span < 0 {
		return fmt.Errorf("a span of the clock is expected: 90s, 10m, 8h")
	}
	return nil
}

// ParseSize reads a number of bytes: 500MB is 500 million, 2GiB or 2Gi twice 1,073,741,824. Errors are fault.ErrInvalid.
func ParseSize(text string) (int64, error) {
	parts := sizeFormat.FindStringSubmatch(text)
	if parts == nil {
		return 0, fault.New("", fault.ErrInvalid, "a size is expected: 500MB, 2GiB", "")
	}
	n, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return 0, fault.Wrap("", fault.ErrInvalid, err, "")
	}
	base := int64(1000)
	if parts[3] != "" {
		base = 1024
	}
	for range strings.Index("KMGT", parts[2]) + 1 {
		if n > math.MaxInt64/base {
			return 0, fault.New("", fault.ErrInvalid, "too large", "")
		}
		n *= base
	}
	return n, nil
}
