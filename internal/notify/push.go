package notify

import (
	"context"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// Ntfy is a topic of an ntfy server.
type Ntfy struct {
	Client   *Client
	URL      fault.Secret // with the topic: who knows it reads it
	Token    fault.Secret
	Username string // with Password, where there is no Token
	Password fault.Secret
	Email    string // the server also mails it here
}

// Send implements Channel.
func (n Ntfy) Send(ctx context.Context, m Message) error {
	r := request{
		method: http.MethodPost, address: n.URL, body: []byte(m.Text), secrets: []fault.Secret{n.Token, n.Password}, quote: true,
		header: map[string]string{
			"Content-Type": "text/plain; charset=utf-8",
			"Title":        mime.BEncoding.Encode("utf-8", m.Title),
			"Priority":     [...]string{Good: "default", Alarmed: "high", Bad: "high"}[m.Outcome],
			"Tags":         [...]string{Good: "white_check_mark", Alarmed: "warning", Bad: "rotating_light"}[m.Outcome],
		},
	}
	if n.Email != "" {
		r.header["Email"] = clean(n.Email)
	}
	switch {
	case n.Token != "":
		r.header["Authorization"] = "Bearer " + n.Token.Reveal()
	case n.Password != "":
		r.login = url.UserPassword(n.Username, n.Password.Reveal())
	}
	return n.Client.send(ctx, "ntfy", r)
}

// Gotify is an application of a Gotify server.
type Gotify struct {
	Client *Client
	URL    fault.Secret // of the server
	Token  fault.Secret
}

// Send implements Channel. The token goes in a header: what is in a query is in the log of every proxy.
func (g Gotify) Send(ctx context.Context, m Message) error {
	return g.Client.post(ctx, "gotify", request{
		address: below(g.URL, "message"), secrets: []fault.Secret{g.Token},
		header: map[string]string{"X-Gotify-Key": g.Token.Reveal()},
	}, struct {
		Title    string `json:"title"`
		Message  string `json:"message"`
		Priority int    `json:"priority"`
	}{m.Title, m.Text, [...]int{Good: 2, Alarmed: 6, Bad: 8}[m.Outcome]})
}

// Apprise is an Apprise API server.
type Apprise struct {
	Client *Client
	URL    fault.Secret   // of the server
	Config fault.Secret   // key of a configuration stored there
	Tags   []string       // which services of that configuration
	URLs   []fault.Secret // services, where no configuration is stored
}

// Send implements Channel.
func (a Apprise) Send(ctx context.Context, m Message) error {
	services := make([]string, len(a.URLs))
	for i, u := range a.URLs {
		services[i] = u.Reveal()
	}
	return a.Client.post(ctx, "apprise", request{
		address: below(a.URL, "notify/"+url.PathEscape(a.Config.Reveal())), secrets: slices.Concat(a.URLs, []fault.Secret{a.Config}),
	}, struct {
		Title string   `json:"title"`
		Body  string   `json:"body"`
		Type  string   `json:"type"`
		Tags  []string `json:"tags,omitempty"`
		URLs  []string `json:"urls,omitempty"`
	}{m.Title, m.Text, [...]string{Good: "success", Alarmed: "warning", Bad: "failure"}[m.Outcome], a.Tags, services})
}

// below is an address with a path added; the slash between is there once.
func below(address fault.Secret, path string) fault.Secret {
	return fault.Secret(strings.TrimRight(address.Reveal(), "/") + "/" + path)
}

// Slack is an incoming webhook of Slack, or one that understands the same: Mattermost, Rocket.Chat, Discord (with /slack).
type Slack struct {
	Client *Client
	URL    fault.Secret
}

// maxChat is what Discord takes, in characters; others take more.
const maxChat = 1900

// Send implements Channel. The text is a block of code, in which nothing a repository is called mentions anybody.
func (s Slack) Send(ctx context.Context, m Message) error {
	plain := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "```", "'''")
	text := "*" + plain.Replace(m.Title) + "*\n```\n" + cut(plain.Replace(m.Text), maxChat-2*maxTitle) + "\n```"
	return s.Client.post(ctx, "webhook", request{address: s.URL}, struct {
		Text string `json:"text"`
	}{text})
}

// Webhook is a URL that takes the report of the run as JSON.
type Webhook struct {
	Client *Client
	URL    fault.Secret
}

// Send implements Channel.
func (w Webhook) Send(ctx context.Context, m Message) error {
	return w.Client.post(ctx, "webhook", request{address: w.URL}, m.Run)
}
