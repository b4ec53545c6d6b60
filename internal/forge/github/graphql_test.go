package github_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/forge/forgetest"
	"github.com/backstay/backstay/internal/forge/github"
)

// graphType is a type of GitHub's GraphQL schema.
type graphType struct {
	Name   string
	Fields []struct {
		Name string
		Args []struct{ Name string }
		Type typeRef
	}
	InputFields   []struct{ Name string }
	EnumValues    []struct{ Name string }
	PossibleTypes []struct{ Name string }
}

// canBe reports whether an object of the type may be of the other one.
func (t graphType) canBe(other string) bool {
	return t.Name == other || slices.ContainsFunc(t.PossibleTypes, func(p struct{ Name string }) bool { return p.Name == other })
}

// typeRef is a type, or a list of it, or the same that is never null.
type typeRef struct {
	Name   string
	OfType *typeRef
}

func (r typeRef) name() string {
	for r.OfType != nil {
		r = *r.OfType
	}
	return r.Name
}

// checkQuery holds the fields and arguments of a query against the schema. tokens are the query's; it returns those after the
// selection of the type, which begins with the first.
func checkQuery(types map[string]graphType, of string, tokens []string) ([]string, error) {
	if len(tokens) == 0 || tokens[0] != "{" {
		return tokens, fmt.Errorf("%s has no selection", of)
	}
	tokens = tokens[1:]
	for len(tokens) > 0 && tokens[0] != "}" {
		if len(tokens) > 2 && tokens[0] == "..." { // on a type
			var err error
			if !types[of].canBe(tokens[2]) {
				return nil, fmt.Errorf("%s is never a %s", of, tokens[2])
			}
			if tokens, err = checkQuery(types, tokens[2], tokens[3:]); err != nil {
				return nil, err
			}
			continue
		}
		if tokens[0] == "__typename" {
			tokens = tokens[1:]
			continue
		}
		if len(tokens) > 2 && tokens[1] == ":" { // an alias
			tokens = tokens[2:]
		}
		fields := types[of].Fields
		i := 0
		for i < len(fields) && fields[i].Name != tokens[0] {
			i++
		}
		if i == len(fields) {
			return nil, fmt.Errorf("%s has no %s", of, tokens[0])
		}
		field := fields[i]
		tokens = tokens[1:]
		if len(tokens) > 0 && tokens[0] == "(" {
			end, depth := slices.Index(tokens, ")"), 0
			for j := 1; j < end; j++ {
				switch tokens[j] {
				case "{":
					depth++
				case "}":
					depth--
				}
				if depth == 0 && tokens[j+1] == ":" && !slices.ContainsFunc(field.Args, func(a struct{ Name string }) bool { return a.Name == tokens[j] }) {
					return nil, fmt.Errorf("%s has no argument %s", field.Name, tokens[j])
				}
			}
			tokens = tokens[end+1:]
		}
		inner := field.Type.name()
		if len(types[inner].Fields) > 0 || len(types[inner].PossibleTypes) > 0 {
			var err error
			if tokens, err = checkQuery(types, inner, tokens); err != nil {
				return nil, err
			}
		}
	}
	return tokens[1:], nil
}

var graphToken = regexp.MustCompile(`\.\.\.|[{}():\[\]]|[$\w!]+`)

// graphSchema reads GitHub's schema.
func graphSchema(t *testing.T) map[string]graphType {
	t.Helper()
	content, err := os.ReadFile(forgetest.Recordings(t, "BACKSTAY_TEST_GITHUB_GRAPHQL"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Schema struct{ Types []graphType } `json:"__schema"`
	}
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	types := map[string]graphType{}
	for _, known := range schema.Schema.Types {
		types[known.Name] = known
	}
	return types
}

// checkWhole checks a query from its variables to its end.
func checkWhole(types map[string]graphType, query string) error {
	_, selection, _ := strings.Cut(query, ")")
	left, err := checkQuery(types, "Query", graphToken.FindAllString(selection, -1))
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("it goes on: %q", left)
	}
	return err
}

func TestQueriesFitTheSchema(t *testing.T) {
	types := graphSchema(t)
	queries := askedOf(t)
	if len(queries) != 2 {
		t.Fatalf("%d queries were asked", len(queries))
	}
	check := func(query string) error { return checkWhole(types, query) }
	for _, query := range queries {
		if err := check(query); err != nil {
			t.Errorf("%v in %s", err, query)
		}
		for good, bad := range map[string]string{"isFork": "isForked", "endCursor": "cursor", "first: 100": "limit: 100", "login }": "userName }"} {
			if check(strings.Replace(query, good, bad, 1)) == nil {
				t.Errorf("%s for %s is not noticed", bad, good)
			}
		}
		_, list, _ := strings.Cut(query, "contributionTypes: [")
		list, _, _ = strings.Cut(list, "]")
		for kind := range strings.SplitSeq(list, ", ") {
			if !slices.Contains(types["RepositoryContributionType"].EnumValues, struct{ Name string }{kind}) {
				t.Errorf("there are no contributions of the type %s", kind)
			}
		}
	}
}

// askedOf collects the queries that the provider asks: for its own account, and for another user.
func askedOf(t *testing.T) (queries []string) {
	t.Helper()
	answer := func(r *http.Request) *http.Response {
		w := httptest.NewRecorder()
		switch {
		case r.Method == http.MethodPost:
			var body struct{ Query string }
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			queries = append(queries, body.Query)
			w.WriteString(`{"data":{"account":{"repositoriesContributedTo":{"pageInfo":{}}}}}`)
		case strings.HasPrefix(r.URL.Path, "/user") && !strings.HasSuffix(r.URL.Path, "/repos"):
			w.WriteString(`{"login":"tester","type":"User"}`)
		default:
			w.WriteString(`[]`)
		}
		return w.Result()
	}
	p, err := github.New(github.Options{Token: fault.Secret("t"), Client: forge.ClientOptions{Transport: roundTrip(answer)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"tester", "octocat"} {
		if _, _, err := list(t.Context(), p, forge.Selection{User: user, Contributed: true}); err != nil {
			t.Error(err)
		}
	}
	return queries
}
