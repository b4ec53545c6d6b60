package forge

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/backstay/backstay/internal/fault"
)

// maxWords is the longest refusal that is looked into, in bytes.
const maxWords = 64 << 10

// saidLength bounds what is kept of a forge's own words, in characters.
const saidLength = 300

// refused makes an error of an answer that is none of those hoped for.
func (c *Client) refused(l call, r *Response, credentials http.Header) error {
	said := c.clean(messageOf(r), credentials)
	text := "the forge answers " + strings.TrimSpace(strconv.Itoa(r.Status)+" "+http.StatusText(r.Status))
	if said != "" {
		text += ": " + said
	}
	after := retryAfter(r.Header, c.o.Clock())
	if isThrottled(r, said) {
		if q, ok := quotaOf(r.Header, c.o.Clock()); after == 0 && ok && q.remaining <= 0 {
			after = q.reset.Sub(c.o.Clock())
		}
		return &throttled{fault.New("", fault.ErrThrottled, text, "run it again later"), after}
	}
	switch {
	case r.Status == http.StatusUnauthorized:
		return fault.New("", fault.ErrDenied, "the token is not accepted or has expired: "+text, "make a new token and give that")
	case r.Status == http.StatusForbidden:
		return fault.New("", fault.ErrDenied, text, scopeHint(r.Header))
	case r.Status == http.StatusNotFound, r.Status == http.StatusGone:
		return fault.New("", fault.ErrNotFound, text, "it is not there, or the token cannot see it")
	case r.Status == http.StatusUnavailableForLegalReasons:
		return fault.New("", fault.ErrDenied, "blocked for legal reasons: "+text, "")
	case r.Status == http.StatusConflict:
		return fault.New("", fault.ErrExists, text, "")
	case r.Status == http.StatusNotImplemented, r.Status == http.StatusMethodNotAllowed:
		return fault.New("", fault.ErrUnsupported, text, "")
	case r.Status == http.StatusRequestTimeout, r.Status >= 500:
		err := fault.New("", fault.ErrUnavailable, text, "the forge has trouble: try again later")
		if after > 0 && l.idempotent {
			return &throttled{err, after}
		}
		return &passing{err}
	}
	return fault.New("", fault.ErrInvalid, text, "")
}

// isThrottled reports whether a refusal is for too many requests.
func isThrottled(r *Response, said string) bool {
	switch r.Status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusForbidden:
		said = strings.ToLower(said)
		return r.Header.Get("Retry-After") != "" || r.Header.Get("X-RateLimit-Remaining") == "0" ||
			strings.Contains(said, "secondary rate limit") || strings.Contains(said, "rate limit exceeded")
	}
	return false
}

// scopeHint names what the token lacks, where the headers say.
func scopeHint(h http.Header) string {
	has := map[string]bool{}
	for _, scope := range listOf(h.Get("X-OAuth-Scopes")) {
		has[scope] = true
	}
	var lacks []string
	for _, scope := range listOf(h.Get("X-Accepted-OAuth-Scopes")) {
		if has[scope] {
			return "" // one of them is enough
		}
		lacks = append(lacks, scope)
	}
	if len(lacks) > 0 {
		return "the token needs the scope " + printable(strings.Join(lacks, " or "))
	}
	if needs := h.Get("X-Accepted-GitHub-Permissions"); needs != "" {
		return "the token needs the permission " + printable(needs)
	}
	return "check what the token may do"
}

// messageOf finds a forge's own words in an answer.
func messageOf(r *Response) string {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "text/plain") {
		return string(r.Body[:min(len(r.Body), maxWords)])
	}
	if len(r.Body) > maxWords {
		return ""
	}
	var said struct {
		Message     any `json:"message"`
		Error       any `json:"error"`
		Description any `json:"error_description"`
		Errors      any `json:"errors"`
	}
	if json.Unmarshal(r.Body, &said) != nil {
		return ""
	}
	var words []string
	for _, value := range []any{said.Message, said.Error, said.Description, said.Errors} {
		if text := wordsOf(value, 3); text != "" {
			words = append(words, text)
		}
	}
	return strings.Join(words, ": ")
}

// wordsOf makes a line of the forms in which forges say what is wrong: a text, an object with a message, lists and maps of them.
func wordsOf(value any, depth int) string {
	if depth == 0 {
		return ""
	}
	var words []string
	switch value := value.(type) {
	case string:
		return value
	case []any:
		for _, item := range value[:min(len(value), 3)] {
			words = append(words, wordsOf(item, depth-1))
		}
	case map[string]any:
		if text := wordsOf(value["message"], depth-1); text != "" {
			return text
		}
		for name, item := range value {
			if text := wordsOf(item, depth-1); text != "" {
				words = append(words, name+" "+text)
			}
			if len(words) == 3 {
				break
			}
		}
	}
	return strings.Join(words, "; ")
}

// clean makes a forge's words fit to be shown: on one line, short, without secrets.
func (c *Client) clean(text string, credentials http.Header) string {
	secrets := append([]fault.Secret{}, c.o.Secrets...)
	for _, values := range credentials {
		for _, value := range values {
			secrets = append(secrets, credentialsIn(value)...)
		}
	}
	text = printable(strings.Join(strings.Fields(fault.Redact(text, secrets...)), " "))
	if runes := []rune(text); len(runes) > saidLength {
		text = string(runes[:saidLength]) + "…"
	}
	return text
}

// credentialsIn lists what of a header's value is secret: the value, what follows its scheme, and what that means in base64.
func credentialsIn(value string) []fault.Secret {
	secrets := []fault.Secret{fault.Secret(value)}
	_, after, ok := strings.Cut(value, " ")
	if !ok {
		return secrets
	}
	secrets = append(secrets, fault.Secret(after))
	if decoded, err := base64.StdEncoding.DecodeString(after); err == nil {
		_, password, _ := strings.Cut(string(decoded), ":")
		secrets = append(secrets, fault.Secret(decoded), fault.Secret(password))
	}
	return secrets
}

// printable escapes what could not be shown on a terminal.
func printable(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text
	}
	quoted := fmt.Sprintf("%q", text)
	return quoted[1 : len(quoted)-1]
}
