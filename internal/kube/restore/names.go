package restore

import (
	"strconv"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/backstay/backstay/internal/fault"
)

// maxName is more than any name of an object may have, in bytes.
const maxName = 253

// String is NAMESPACE/KIND.GROUP/NAME, or KIND.GROUP/NAME of objects of the cluster.
func (r Ref) String() string {
	name := kindName(r.groupKind()) + "/" + r.Name
	if r.Namespace == "" {
		return name
	}
	return r.Namespace + "/" + name
}

func (r Ref) groupKind() schema.GroupKind { return schema.GroupKind{Group: r.Group, Kind: r.Kind} }

func refOf(u *unstructured.Unstructured) Ref {
	gk := u.GroupVersionKind().GroupKind()
	return Ref{Group: gk.Group, Kind: gk.Kind, Namespace: u.GetNamespace(), Name: u.GetName()}
}

// kindName is KIND.GROUP in small letters.
func kindName(gk schema.GroupKind) string {
	if gk.Group == "" {
		return strings.ToLower(gk.Kind)
	}
	return strings.ToLower(gk.Kind) + "." + gk.Group
}

// badIdentity says what is wrong with an object's kind and name; empty for nothing.
func badIdentity(u *unstructured.Unstructured) string {
	gv, err := schema.ParseGroupVersion(u.GetAPIVersion())
	switch name := u.GetName(); {
	case u.GetKind() == "" || err != nil || gv.Version == "":
		return "it has no kind or version"
	case name == "":
		return "it has no name"
	case len(name) > maxName, len(path.IsValidPathSegmentName(name)) > 0, strings.ContainsFunc(name, unicode.IsControl):
		return "its name is none that an object can have"
	}
	return ""
}

// selector chooses objects: all, a kind, or one object.
type selector struct {
	all      bool
	kind     string // in small letters
	group    string
	anyGroup bool   // none was said
	name     string // empty for all of the kind
}

// parseSelector reads KIND.GROUP/NAME, KIND.GROUP, and, where it may be, *. Without GROUP it is the kind of any group.
func parseSelector(text string, mayAll bool) (selector, error) {
	if text == "*" && mayAll {
		return selector{all: true}, nil
	}
	kindAndGroup, name, named := strings.Cut(text, "/")
	kind, group, grouped := strings.Cut(kindAndGroup, ".")
	if kind == "" || strings.ContainsAny(kindAndGroup, "* ") || grouped && group == "" || named && (name == "" || strings.Contains(name, "/")) {
		return selector{}, fault.New("select objects by "+strconv.Quote(text), fault.ErrInvalid, "not of the form KIND.GROUP/NAME",
			"write deployment.apps/web for one object, configmap for all of a kind")
	}
	return selector{kind: strings.ToLower(kind), group: group, anyGroup: !grouped, name: name}, nil
}

func parseSelectors(texts []string) ([]selector, error) {
	all := make([]selector, 0, len(texts))
	for _, text := range texts {
		s, err := parseSelector(text, false)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (s selector) matches(gk schema.GroupKind, name string) bool {
	return s.all || s.kind == strings.ToLower(gk.Kind) && (s.anyGroup || s.group == gk.Group) && (s.name == "" || s.name == name)
}

// plain is text that a terminal shows as it is, at most so many bytes long.
func plain(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}
