package forge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// maxPages is how many pages a listing may have.
const maxPages = 20_000

// maxItems is how many items a page may have; forges give 100.
const maxItems = 10_000

// Page is one page of a listing.
type Page struct {
	Items    []json.RawMessage
	Response *Response
}

// Listing says where a listing begins and how it goes on.
type Listing struct {
	Path  string
	Query url.Values // of the first page; the others' addresses carry their own
	At    string     // key that holds the items; "" where the answer is the array itself
	// Next gives path or URL of the page after p, "" after the last one. Nil follows the "next" link of the Link header.
	Next func(p Page) (string, error)
	// Total says how many items there are in all, by the page; negative where it does not tell. Nil reads X-Total and X-Total-Count.
	Total func(p Page) int
}

// Pages follows the "next" links of a listing whose answers are JSON arrays, or hold one under the key at ("" for the array
// itself). It ends with an error where a page repeats or leads to another host, and where fewer items came than the forge says it has.
func (c *Client) Pages(ctx context.Context, path string, query url.Values, at string) iter.Seq2[Page, error] {
	return c.List(ctx, Listing{Path: path, Query: query, At: at})
}

// List is Pages for listings that go on in ways of their own.
func (c *Client) List(ctx context.Context, l Listing) iter.Seq2[Page, error] {
	if l.Next == nil {
		l.Next = NextLink
	}
	if l.Total == nil {
		l.Total = totalHeader
	}
	return func(yield func(Page, error) bool) {
		err := c.list(ctx, l, func(p Page) bool { return yield(p, nil) })
		if err != nil {
			yield(Page{}, fault.Wrap("list "+printable(l.Path), nil, err, ""))
		}
	}
}

// list yields pages until the last, or until yield is content.
func (c *Client) list(ctx context.Context, l Listing, yield func(Page) bool) error {
	var guard Guard
	path, query, total, arrived := l.Path, l.Query, -1, 0
	for {
		p, err := c.page(ctx, path, query, l.At)
		if err != nil {
			return err
		}
		if err := guard.Page(path, p.Items); err != nil {
			return err
		}
		total, arrived = max(total, l.Total(p)), arrived+len(p.Items)
		next, err := l.Next(p)
		if err != nil {
			return err
		}
		if next == "" && arrived < total {
			return fault.New("", fault.ErrIncomplete, fmt.Sprintf("the forge has %d and gave %d", total, arrived),
				"run it again: something was added or removed meanwhile, or the forge does not give everything")
		}
		if !yield(p) || next == "" {
			return nil
		}
		path, query = next, nil
	}
}

// page fetches one page.
func (c *Client) page(ctx context.Context, path string, query url.Values, at string) (Page, error) {
	var p Page
	answer := pageBody{at: at}
	r, err := c.Do(ctx, http.MethodGet, path, query, nil, &answer)
	if err != nil {
		return p, err
	}
	p.Items, p.Response = answer.items, r
	return p, nil
}

// pageBody decodes the items of a page; being part of decoding, what is wrong with them is tried again.
type pageBody struct {
	at    string
	items []json.RawMessage
}

// UnmarshalJSON takes an array, null for none, or an object that has one.
func (p *pageBody) UnmarshalJSON(b []byte) (err error) {
	if p.at == "" {
		p.items, err = itemsOf(b)
		return err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	list, ok := object[p.at]
	if !ok {
		return fmt.Errorf("no %q", p.at)
	}
	p.items, err = itemsOf(list)
	return err
}

// itemsOf splits an array, up to more items than any forge puts on a page: short ones take many times their length in memory.
func itemsOf(array []byte) (items []json.RawMessage, err error) {
	if string(array) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(array))
	if open, err := d.Token(); err != nil || open != json.Delim('[') {
		return nil, errors.New("no array")
	}
	for d.More() {
		var item json.RawMessage
		if err := d.Decode(&item); err != nil {
			return nil, err
		}
		if items = append(items, item); len(items) > maxItems {
			return nil, fmt.Errorf("more than %d items", maxItems)
		}
	}
	return items, nil
}

// Guard notices a listing that goes in circles. The zero value is ready for use; it is for one listing.
type Guard struct {
	seen map[string]bool
}

// Page takes the address of a page (or the cursor that leads to it) and its items, and fails for one that came before.
func (g *Guard) Page(address string, items []json.RawMessage) error {
	if g.seen == nil {
		g.seen = map[string]bool{}
	}
	if len(g.seen) > 2*maxPages {
		return fault.New("", fault.ErrUnsupported, fmt.Sprintf("the listing has more than %d pages", maxPages), "")
	}
	sum := sha256.New()
	for _, item := range items {
		fmt.Fprintf(sum, "%d:%s", len(item), item)
	}
	content := "content " + string(sum.Sum(nil))
	if g.seen["page "+address] || (len(items) > 0 && g.seen[content]) {
		return fault.New("", fault.ErrUnavailable, "the forge gives a page of the listing twice", "try again later; the listing cannot be complete")
	}
	g.seen["page "+address], g.seen[content] = true, true
	return nil
}

// totalHeader reads how many items a listing has.
func totalHeader(p Page) int {
	for _, name := range []string{"X-Total", "X-Total-Count"} {
		if n, err := strconv.Atoi(p.Response.Header.Get(name)); err == nil {
			return n
		}
	}
	return -1
}

// NextLink reads the "next" address of the Link header (RFC 8288); "" where there is none.
func NextLink(p Page) (string, error) {
	for _, header := range p.Response.Header.Values("Link") {
		if next := linkTo(header, "next"); next != "" {
			return next, nil
		}
	}
	return "", nil
}

// linkTo finds the target of the link with a relation; "" where there is none.
func linkTo(header, relation string) string {
	for header != "" {
		_, after, ok := strings.Cut(header, "<")
		if !ok {
			return ""
		}
		target, after, ok := strings.Cut(after, ">")
		if !ok {
			return ""
		}
		var parameters string
		parameters, header = cutUnquoted(after, ',')
		if hasRelation(parameters, relation) {
			return strings.TrimSpace(target)
		}
	}
	return ""
}

// cutUnquoted cuts at the first separator outside of quotes.
func cutUnquoted(s string, separator byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// hasRelation looks for rel=next, rel="next" and rel="other next".
func hasRelation(parameters, relation string) bool {
	for parameters != "" {
		var parameter string
		parameter, parameters = cutUnquoted(parameters, ';')
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "rel") {
			continue
		}
		for _, r := range strings.Fields(strings.Trim(strings.TrimSpace(value), `"`)) {
			if strings.EqualFold(r, relation) {
				return true
			}
		}
	}
	return false
}
