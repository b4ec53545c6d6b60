package offline

import (
	"bufio"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/forge/neutral"
)

var (
	//go:embed pages/page.css
	style string
	//go:embed pages/search.js
	script string
	//go:embed pages/pages.html
	templates string
)

// What pages may load and do: nothing but pictures beside them. Only the search runs a script, which is known by its digest, and what
// that loads. "file:" is for browsers that know no "self" on a disk.
const (
	rights       = "default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
	searchRights = rights + "; script-src 'sha256-%s' 'strict-dynamic'"
)

const head = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{{.Rights}}">
<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width"><title>{{clean .Title}}</title>
<style>{{.Style}}</style></head>
<body>
`

// parsePages returns the templates of pages.
func parsePages() (*template.Template, error) {
	t := template.New("head").Funcs(template.FuncMap{
		"clean": clean, "stamp": stamp, "person": person, "link": webLink, "edited": edited, "tally": tally, "codePlace": codePlace,
		"verdict": verdict, "count": count,
	})
	if _, err := t.Parse(head); err != nil {
		return nil, err
	}
	return t.Parse(templates)
}

// page is what every page has.
type page struct {
	Title      string
	Up, Below  string // ways to the directories of the export and of the repository
	Repository string // "" for pages of all
	Rights     string
	site       *Site
	links      links
}

// Style is that of all pages.
func (p *page) Style() template.CSS { return template.CSS(style) }

// Text renders Markdown.
func (p *page) Text(text string) template.HTML { return p.site.markdown.render(text, p.links) }

// Find is a search for what has a value.
func (p *page) Find(field, value string) string {
	asked := url.Values{"repository": {p.Repository}, field: {value}}
	return p.Up + "search.html#" + asked.Encode()
}

// write makes a page at a place below the export's directory.
func (s *Site) write(place, name string, p *page, data any) (err error) {
	at := filepath.Join(s.dir, filepath.FromSlash(place))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	p.site, p.Rights = s, cmp.Or(p.Rights, rights)
	err = s.pages.ExecuteTemplate(w, "head", p)
	if err == nil {
		err = s.pages.ExecuteTemplate(w, name, data)
	}
	if err == nil {
		_, err = w.WriteString("</body></html>\n")
	}
	return errors.Join(err, w.Flush(), f.Close())
}

// fact is a line of a table: a name, and what is so called.
type fact struct {
	Name   string
	Values []string
}

// facts are lines of a table that have something in them.
type facts []fact

func (f *facts) add(name string, values ...string) {
	values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
	if len(values) > 0 {
		*f = append(*f, fact{name, values})
	}
}

func (f *facts) when(name string, is bool) {
	if is {
		f.add(name, "yes")
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// count says how many there are of a thing whose plural has an "s".
func count(n int64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func edited(o neutral.Origin) bool {
	return !o.Updated.IsZero() && o.Updated.Sub(o.Created) > time.Minute
}

// person is how somebody is called on a page.
func person(u neutral.User) string {
	switch {
	case u.Login == "" && u.Name == "":
		return ""
	case u.Login == "" || u.Name == "" || u.Login == u.Name:
		return clean(nameOf(u))
	}
	return clean(u.Login + " (" + u.Name + ")")
}

func people(all []neutral.User) []string {
	var names []string
	for _, u := range all {
		names = append(names, person(u))
	}
	return names
}

// by says when something was done, and by whom.
func by(t time.Time, u neutral.User) string {
	text := stamp(t)
	if name := person(u); name != "" {
		text += " by " + name
	}
	return strings.TrimSpace(text)
}

// webLink is an address of a page on the web; "" for any other.
func webLink(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return ""
	}
	return u.String()
}

// signs of reactions; other words stand for themselves.
var signs = map[string]string{
	"+1": "👍", "-1": "👎", "laugh": "😄", "hooray": "🎉", "confused": "😕", "heart": "❤️", "rocket": "🚀", "eyes": "👀",
}

// tallied is a reaction that some people had.
type tallied struct {
	Sign, People string
	Count        int
}

func tally(all []neutral.Reaction) []tallied {
	var found []tallied
	for _, r := range all {
		sign := cmp.Or(signs[r.Content], clean(r.Content))
		i := slices.IndexFunc(found, func(t tallied) bool { return t.Sign == sign })
		if i < 0 {
			i = len(found)
			found = append(found, tallied{Sign: sign})
		}
		found[i].Count++
		if name := person(r.User); found[i].Count > 1 {
			found[i].People += ", " + name
		} else {
			found[i].People = name
		}
	}
	return found
}

// codePlace says where in the code a comment is.
func codePlace(c *neutral.Code) string {
	text := clean(c.Path)
	switch line := cmp.Or(c.Line, c.OriginalLine); {
	case line == 0:
	case c.StartLine > 0 && c.StartLine != line:
		text += fmt.Sprintf(", lines %d to %d", c.StartLine, line)
	default:
		text += fmt.Sprintf(", line %d", line)
	}
	if c.Side == "left" {
		text += ", before the change"
	}
	if oid := clean(cmp.Or(c.OID, c.OriginalOID)); oid != "" {
		text += " at " + oid[:min(len(oid), 12)]
	}
	return text
}

func verdict(state string) string {
	if state == "changes_requested" {
		return "changes requested"
	}
	return clean(state)
}

// shownLabel is a label with its colour, and that of text on it.
type shownLabel struct {
	Name  string
	Color template.CSS
	Ink   template.CSS
}

var colour = regexp.MustCompile(`^[0-9a-f]{6}$`)

func showLabel(name, color string) shownLabel {
	if !colour.MatchString(color) {
		color = "888888"
	}
	var light int64
	for i, weight := range []int64{299, 587, 114} {
		part, _ := strconv.ParseInt(color[2*i:2*i+2], 16, 64) // it matched
		light += weight * part
	}
	ink := template.CSS("#fff")
	if light > 140_000 {
		ink = "#000"
	}
	return shownLabel{name, template.CSS("#" + color), ink}
}
