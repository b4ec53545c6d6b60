package forge

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLinksOfATextAre(t *testing.T) {
	tests := map[string]struct {
		text string
		want []string
	}{
		"nothing":               {"no links, httpd://x, nohttps://a.example/b", nil},
		"a link":                {"see [the log](https://a.example/log.txt \"the log\").", []string{"https://a.example/log.txt"}},
		"an image in a link":    {"[![x](https://a.example/x.png)](https://a.example/y)", []string{"https://a.example/x.png", "https://a.example/y"}},
		"a bare one":            {"see https://a.example/b, or (https://a.example/c).", []string{"https://a.example/b", "https://a.example/c"}},
		"with parentheses":      {"https://a.example/b_(c) [x](https://a.example/d_(e))", []string{"https://a.example/b_(c)", "https://a.example/d_(e)"}},
		"each once":             {"https://a.example/b https://a.example/b", []string{"https://a.example/b"}},
		"whatever the case":     {"HTTPS://A.example/b", []string{"HTTPS://A.example/b"}},
		"between brackets":      {"<https://a.example/b>", []string{"https://a.example/b"}},
		"relative":              {"![x](/uploads/0f/x.png) [y](../y) [z](#z)", []string{"/uploads/0f/x.png", "../y"}},
		"in angle brackets":     {"![x](</uploads/0f/x.png>)", []string{"/uploads/0f/x.png"}},
		"a reference":           {"[x][1]\n\n[1]: https://a.example/x\n[2]: <https://a.example/y>", []string{"https://a.example/x", "https://a.example/y"}},
		"HTML":                  {`<img width=3 src="/attachments/1?a=b&amp;c=d"><a href='https://a.example/b'>`, []string{"/attachments/1?a=b&c=d", "https://a.example/b"}},
		"HTML without quotes":   {`<video SRC = https://a.example/v.mp4>`, []string{"https://a.example/v.mp4"}},
		"another attribute":     {`<img data-src="/b" datasrc="/a" alt="/c">`, nil},
		"attribute after tag":   {`<source src="/b"/><video poster="/c">`, []string{"/b", "/c"}},
		"schemes that are none": {"[x](javascript:alert(1)) [y](mailto:a@a.example) [z](data:image/png;base64,AA)", nil},
		"emphasis":              {"**https://a.example/b**", []string{"https://a.example/b"}},
		"end of the text":       {"](", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Links(test.text); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestLinksInNamesTheTextsOfTheKeys(t *testing.T) {
	raw := `{"title": "https://a.example/title", "body": "https://a.example/1", "nodes": [{"body": "https://a.example/2"}, {"body": null}]}`
	if got, want := LinksIn(json.RawMessage(raw), "body"), []string{"https://a.example/1", "https://a.example/2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := LinksIn(json.RawMessage(`{"body": `), "body"); got != nil {
		t.Errorf("of what is no JSON, got %q", got)
	}
}

func TestLinksOfATextThatIsMadeToTakeLong(t *testing.T) {
	for _, piece := range []string{"](", "https://", "src=", "https://a/((((", "[x]: <", `src="`} {
		began := time.Now()
		Links(strings.Repeat(piece, 1<<20/len(piece)))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("1 MiB of %s took %s", piece, took)
		}
	}
}

func FuzzLinks(f *testing.F) {
	for _, seed := range []string{
		"[a](https://a.example/b \"c\") <https://d.example> https://e.example/f(g).", `<img src="/h?i&amp;j">`, "[k]: <l>\n", "](<", "src='", "](\x00)", "https://[::1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all := Links(text)
		for i, address := range all {
			if !isAddress(address) || slices.Contains(all[:i], address) {
				t.Errorf("%q among %q", address, all)
			}
			if !strings.Contains(strings.ReplaceAll(text, "&amp;", "&"), address) {
				t.Errorf("%q does not stand in the text", address)
			}
		}
	})
}
