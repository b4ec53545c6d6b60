package githubtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// maxNodes is how many nodes a query may ask for.
const maxNodes = 500_000

// object is one of GraphQL's, by its fields, with its type as "__typename". A field that is a resolver takes arguments.
type object = map[string]any

type resolver func(arguments map[string]any) (any, error)

// field is a piece of a query: a field with its alias, or the fields on a type.
type field struct {
	alias, name string
	on          string
	arguments   map[string]any
	fields      []field
}

// query answers a query for what belongs to metadata.
func (x *exchange) query(body []byte) {
	if x.r.Header.Get("Authorization") == "" {
		x.answer(http.StatusUnauthorized, map[string]any{"message": "This endpoint requires you to be authenticated."})
		return
	}
	var asked struct {
		Query     string
		Variables map[string]any
	}
	answer := map[string]any{}
	err := json.Unmarshal(body, &asked)
	var fields []field
	if err == nil {
		fields, err = parse(asked.Query, asked.Variables)
	}
	if err == nil && !x.seesProjects(asked.Query) {
		x.answer(http.StatusOK, map[string]any{"errors": []any{map[string]any{"type": "INSUFFICIENT_SCOPES", "message": errScopes}}})
		return
	}
	if err == nil && nodesOf(fields, 1) > maxNodes {
		err = fmt.Errorf("the query asks for up to %d nodes, the limit is %d", nodesOf(fields, 1), maxNodes)
	}
	if err != nil {
		x.answer(http.StatusOK, map[string]any{"errors": []any{map[string]any{"message": err.Error()}}})
		return
	}
	g := &graph{}
	root := x.root()
	if strings.HasPrefix(strings.TrimSpace(asked.Query), "mutation") {
		root = x.mutations()
	}
	answer["data"] = g.object(fields, root)
	if len(g.problems) > 0 {
		answer["errors"] = g.problems
	}
	x.answer(http.StatusOK, answer)
}

// nodesOf counts the nodes that fields ask for, as GitHub does: without looking whether they are there.
func nodesOf(fields []field, times int) int {
	sum := 0
	for _, f := range fields {
		n := times
		if first, ok := f.arguments["first"].(int); ok {
			n *= first
			sum += n
		}
		if ids, ok := f.arguments["ids"].([]any); ok {
			n *= len(ids)
			sum += n
		}
		sum += nodesOf(f.fields, n)
	}
	return sum
}

// graph is a query while it is answered.
type graph struct {
	problems []any
}

// errNotFound is a node that is not there.
type errNotFound string

func (e errNotFound) Error() string { return "Could not resolve to a " + string(e) + "." }

// errForbidden is a field that the token may not see.
type errForbidden string

func (e errForbidden) Error() string { return string(e) }

func (g *graph) fail(err error) {
	kind := "undefinedField"
	if errors.As(err, new(errNotFound)) {
		kind = "NOT_FOUND"
	}
	if errors.As(err, new(errForbidden)) {
		kind = "FORBIDDEN"
	}
	g.problems = append(g.problems, map[string]any{"type": kind, "message": err.Error()})
}

// object resolves fields.
func (g *graph) object(fields []field, o object) map[string]any {
	out := map[string]any{}
	for _, f := range fields {
		if f.on != "" {
			if isA(o, f.on) {
				maps.Copy(out, g.object(f.fields, o))
			}
			continue
		}
		value, there := o[f.name]
		if !there {
			g.fail(fmt.Errorf("Field '%s' doesn't exist on type '%v'", f.name, o["__typename"])) //nolint:staticcheck // GitHub's own words
			continue
		}
		if resolve, ok := value.(resolver); ok {
			var err error
			if value, err = resolve(f.arguments); err != nil {
				g.fail(err)
			}
		}
		out[f.alias] = g.value(f, value)
	}
	return out
}

func isA(o object, kind string) bool {
	_, reactable := o["reactions"]
	return o["__typename"] == kind || (kind == "Reactable" && reactable)
}

func (g *graph) value(f field, value any) any {
	switch value := value.(type) {
	case nil:
		return nil
	case object:
		if value == nil {
			return nil
		}
		if len(f.fields) == 0 {
			g.fail(fmt.Errorf("Field '%s' must have selections", f.name)) //nolint:staticcheck // GitHub's own words
		}
		return g.object(f.fields, value)
	case []object:
		list := []any{}
		for _, o := range value {
			list = append(list, g.value(f, o))
		}
		return list
	}
	return value
}

// pages makes a connection of a list.
func pages[T any](all []T, node func(T) object) resolver {
	return func(arguments map[string]any) (any, error) {
		first, ok := arguments["first"].(int)
		if !ok && len(arguments) > 0 || first > 100 {
			return nil, fmt.Errorf("`first` is %v; it must be between 1 and 100", arguments["first"])
		}
		cursor, _ := arguments["after"].(string)
		from, _ := strconv.Atoi(cursor)
		order, _ := arguments["orderBy"].(map[string]any)
		from = min(from, len(all))
		to := min(from+first, len(all))
		nodes := []object{}
		for i := from; i < to; i++ {
			if order["direction"] == "DESC" {
				nodes = append(nodes, node(all[len(all)-1-i]))
			} else {
				nodes = append(nodes, node(all[i]))
			}
		}
		return object{
			"__typename": "Connection", "totalCount": len(all), "nodes": nodes, "edges": nodes,
			"pageInfo": object{"__typename": "PageInfo", "hasNextPage": to < len(all), "endCursor": strconv.Itoa(to)},
		}, nil
	}
}

var tokens = regexp.MustCompile(`\.\.\.|[{}():\[\]!]|"(?:[^"\\]|\\.)*"|\$?\w+`)

// parser reads a query.
type parser struct {
	left      []string
	variables map[string]any
}

// parse reads a query with its variables filled in.
func parse(query string, variables map[string]any) ([]field, error) {
	p := &parser{tokens.FindAllString(query, -1), variables}
	for p.peek() != "{" && p.peek() != "" {
		p.next()
	}
	fields, err := p.selection()
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("Parse error on %q", p.peek()) //nolint:staticcheck // GitHub's own words
	}
	return fields, err
}

func (p *parser) peek() string {
	if len(p.left) == 0 {
		return ""
	}
	return p.left[0]
}

func (p *parser) next() string {
	token := p.peek()
	if token != "" {
		p.left = p.left[1:]
	}
	return token
}

func (p *parser) selection() (fields []field, err error) {
	if token := p.next(); token != "{" {
		return nil, fmt.Errorf("Parse error on %q", token) //nolint:staticcheck // GitHub's own words
	}
	for p.peek() != "}" {
		if p.peek() == "" {
			return nil, errors.New("unexpected end of query")
		}
		f, err := p.field()
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	p.next()
	return fields, nil
}

func (p *parser) field() (f field, err error) {
	name := p.next()
	if name == "..." {
		p.next() // on
		f.on = p.next()
		f.fields, err = p.selection()
		return f, err
	}
	f.alias, f.name = name, name
	if p.peek() == ":" {
		p.next()
		f.name = p.next()
	}
	if p.peek() == "(" {
		if f.arguments, err = p.arguments("(", ")"); err != nil {
			return f, err
		}
	}
	if p.peek() == "{" {
		f.fields, err = p.selection()
	}
	return f, err
}

func (p *parser) arguments(open, end string) (map[string]any, error) {
	all := map[string]any{}
	for p.next(); p.peek() != end; {
		name := p.next()
		if colon := p.next(); name == "" || colon != ":" {
			return nil, fmt.Errorf("Parse error on %q after %q%s", colon, open, name) //nolint:staticcheck // GitHub's own words
		}
		value, err := p.argument()
		if err != nil {
			return nil, err
		}
		all[name] = value
	}
	p.next()
	return all, nil
}

func (p *parser) argument() (any, error) {
	switch token := p.peek(); {
	case token == "{":
		return p.arguments("{", "}")
	case token == "[":
		list := []any{}
		for p.next(); p.peek() != "]"; {
			value, err := p.argument()
			if err != nil || p.peek() == "" {
				return nil, errors.Join(err, errors.New("unexpected end of query"))
			}
			list = append(list, value)
		}
		p.next()
		return list, nil
	case strings.HasPrefix(token, "$"):
		return p.variables[p.next()[1:]], nil
	}
	token := p.next()
	if n, err := strconv.Atoi(token); err == nil {
		return n, nil
	}
	return strings.Trim(token, `"`), nil
}
