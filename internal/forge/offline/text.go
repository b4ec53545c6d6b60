package offline

import (
	"bytes"
	"html"
	"html/template"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	gmhtml "github.com/yuin/goldmark/renderer/html"
	xhtml "golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Bounds of what is rendered; beyond them a text is shown as it stands.
const (
	maxMarkdown = 64 << 10 // bytes, as GitHub takes; hostile ones take time that grows with the square
	maxRendered = 1 << 20  // bytes
	maxCells    = 50_000   // of tables: short rows are filled, so that a few bytes become many cells
)

// links says where an address in a text leads.
type links interface {
	// to returns an address that may stand in a page, and whether it leads into the export. "" for none.
	to(address string) (href string, local bool)
	// image returns the address of a local file that is a picture. "" for none.
	image(address string) string
	// item returns the address of an item's page: of "#12", or of GitLab's "!12". "" for one that is not there.
	item(mark byte, number int64) string
}

// markdown makes HTML of texts. What it makes has no elements, attributes or addresses but those that are written here: goldmark's
// output, with whatever HTML stood in the text, is parsed as a browser does, and only what is known to do nothing is written again.
type markdown struct{ full, withoutTables goldmark.Markdown }

func newMarkdown() markdown {
	parser := func(more ...goldmark.Extender) goldmark.Markdown {
		return goldmark.New(
			goldmark.WithExtensions(append(more, extension.Linkify, extension.Strikethrough, extension.TaskList)...),
			goldmark.WithRendererOptions(gmhtml.WithUnsafe(), gmhtml.WithHardWraps()),
		)
	}
	return markdown{parser(extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignAttribute))), parser()}
}

// parser is the one that a text may be given to.
func (m markdown) parser(text string) goldmark.Markdown {
	columns := 0
	for line := range strings.Lines(text) {
		columns = max(columns, strings.Count(line, "|"))
	}
	if columns*strings.Count(text, "\n") > maxCells {
		return m.withoutTables
	}
	return m.full
}

// render returns a text as HTML.
func (m markdown) render(text string, l links) template.HTML {
	text = clean(text)
	var made bytes.Buffer
	if len(text) > maxMarkdown || m.parser(text).Convert([]byte(text), &made) != nil || made.Len() > maxRendered {
		return verbatim(text)
	}
	nodes, err := xhtml.ParseFragment(&made, &xhtml.Node{Type: xhtml.ElementNode, Data: "div", DataAtom: atom.Div})
	if err != nil { // it is nested too deep
		return verbatim(text)
	}
	w := writer{links: l}
	for _, n := range nodes {
		w.node(n, true)
	}
	return template.HTML(w.String()) //nolint:gosec // writer escapes all that is not its own
}

// verbatim shows a text as it stands.
func verbatim(text string) template.HTML {
	return template.HTML("<pre class=long>" + html.EscapeString(text) + "</pre>\n") //nolint:gosec // it is escaped
}

// What becomes of elements that stand in a text; all others are shown as they stand.
var (
	// kept are written again, without attributes.
	kept = set("h1 h2 h3 h4 h5 h6 p br hr ul ol li pre code blockquote em strong b i u s del ins sub sup kbd samp var tt q dl dt dd " +
		"table thead tbody tfoot tr th td details summary abbr cite mark small")
	// opened are left out, and what is in them stays.
	opened = set("div span font center picture source section article g-emoji")
	void   = set("br hr")
	// literal elements show what is in them as it stands.
	literal = set("pre code samp kbd tt")
)

func set(names string) map[string]bool {
	all := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		all[name] = true
	}
	return all
}

// writer writes parsed HTML again.
type writer struct {
	strings.Builder
	links links
}

// node writes a node with what is in it. prose says that references in it become links.
func (w *writer) node(n *xhtml.Node, prose bool) {
	name := n.Data
	switch {
	case n.Type == xhtml.TextNode:
		w.text(n.Data, prose)
	case n.Type != xhtml.ElementNode: // comments are not seen at the forge either
	case n.Namespace != "":
		w.shown(n)
	case name == "a":
		w.anchor(n)
	case name == "img":
		w.image(n, prose)
	case name == "input":
		w.box(n)
	case opened[name]:
		w.children(n, prose)
	case !kept[name]:
		w.shown(n)
	default:
		w.WriteString("<" + name + w.attributes(n) + ">")
		if !void[name] {
			w.children(n, prose && !literal[name])
			w.WriteString("</" + name + ">")
		}
	}
}

func (w *writer) children(n *xhtml.Node, prose bool) {
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		w.node(c, prose)
	}
}

// attributes are the few that matter and do nothing.
func (w *writer) attributes(n *xhtml.Node) string {
	switch n.Data {
	case "ol":
		if start, err := strconv.ParseUint(attribute(n, "start"), 10, 31); err == nil {
			return ` start="` + strconv.FormatUint(start, 10) + `"`
		}
	case "th", "td":
		if align := attribute(n, "align"); slices.Contains([]string{"left", "center", "right"}, align) {
			return ` align="` + align + `"`
		}
	}
	return ""
}

func attribute(n *xhtml.Node, name string) string {
	for _, a := range n.Attr {
		if a.Namespace == "" && a.Key == name {
			return a.Val
		}
	}
	return ""
}

// shown writes an element as text.
func (w *writer) shown(n *xhtml.Node) {
	w.WriteString(html.EscapeString("<" + n.Data))
	for _, a := range n.Attr {
		w.WriteString(html.EscapeString(" " + a.Key + `="` + a.Val + `"`))
	}
	w.WriteString("&gt;")
	w.children(n, false)
	if n.FirstChild != nil {
		w.WriteString(html.EscapeString("</" + n.Data + ">"))
	}
}

// anchor writes a link that leads somewhere, and else what is in it.
func (w *writer) anchor(n *xhtml.Node) {
	href, local := w.links.to(attribute(n, "href"))
	if href == "" {
		w.children(n, false)
		return
	}
	w.open(href, local)
	w.children(n, false)
	w.WriteString("</a>")
}

// open begins a link.
func (w *writer) open(href string, local bool) {
	w.WriteString(`<a href="` + html.EscapeString(href) + `"`)
	if !local {
		w.WriteString(` rel="noreferrer noopener nofollow" class="out"`)
	}
	w.WriteString(">")
}

// image writes a picture that is in the export, and of others a link: nothing is loaded from elsewhere.
func (w *writer) image(n *xhtml.Node, prose bool) {
	source, alt := attribute(n, "src"), attribute(n, "alt")
	if at := w.links.image(source); at != "" {
		w.WriteString(`<img src="` + html.EscapeString(at) + `" alt="` + html.EscapeString(alt) + `" loading="lazy">`)
		return
	}
	if alt == "" {
		alt = "image"
	}
	href, local := w.links.to(source)
	if href == "" || !prose { // in a link there is no other
		w.WriteString(html.EscapeString("[" + alt + "]"))
		return
	}
	w.open(href, local)
	w.WriteString(html.EscapeString("["+alt+"]") + "</a>")
}

// box is one of a list of tasks.
func (w *writer) box(n *xhtml.Node) {
	if attribute(n, "type") != "checkbox" {
		w.shown(n)
		return
	}
	mark := "☐"
	for _, a := range n.Attr {
		if a.Key == "checked" {
			mark = "☑"
		}
	}
	w.WriteString(mark)
}

// reference is "#12" or "!12" that is no part of a word.
var reference = regexp.MustCompile(`(^|[\s(\[,;:])([#!])([1-9][0-9]{0,8})\b`)

// text writes text, with links to items it refers to.
func (w *writer) text(s string, prose bool) {
	at := 0
	if prose {
		for _, m := range reference.FindAllStringSubmatchIndex(s, -1) {
			number, err := strconv.ParseInt(s[m[6]:m[7]], 10, 64)
			if err != nil {
				continue
			}
			href := w.links.item(s[m[4]], number)
			if href == "" {
				continue
			}
			w.WriteString(html.EscapeString(s[at:m[4]]))
			w.open(href, true)
			w.WriteString(s[m[4]:m[7]] + "</a>")
			at = m[7]
		}
	}
	w.WriteString(html.EscapeString(s[at:]))
}
