package notify

import (
	"context"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Secrets are what no log may show. The zero value has none. Safe for concurrent use.
type Secrets struct {
	mu     sync.RWMutex
	known  map[string]bool // a secret in each way it may be written
	masker *strings.Replacer
}

// minSecret is the shortest secret that is masked, in bytes: shorter ones would mask ordinary words.
const minSecret = 4

// Add makes secrets known. They stay known: a log line may come later than the configuration that had them.
func (s *Secrets) Add(secrets ...fault.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]bool{}
	}
	for _, secret := range secrets {
		for _, way := range spellings(secret.Reveal()) {
			if len(secret) >= minSecret && len(way) >= minSecret {
				s.known[way] = true
			}
		}
	}
	all := make([]string, 0, len(s.known))
	for way := range s.known {
		all = append(all, way)
	}
	// The longest first, so that a secret that begins with another is masked whole.
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(all))
	for _, way := range all {
		pairs = append(pairs, way, fault.Secret("").String())
	}
	s.masker = strings.NewReplacer(pairs...)
}

// spellings are the ways in which a secret gets into text: as it is, in a URL, quoted, as bytes in JSON, and the lines of a key.
func spellings(secret string) []string {
	const keyLine = 16 // shorter lines of a key tell nothing
	ways := []string{
		secret, strings.TrimSpace(secret), url.QueryEscape(secret), url.PathEscape(secret),
		strings.TrimPrefix(url.UserPassword("", secret).String(), ":"),
		strings.Trim(strconv.Quote(secret), `"`), base64.StdEncoding.EncodeToString([]byte(secret)),
	}
	if quoted, err := json.Marshal(secret); err == nil {
		ways = append(ways, strings.Trim(string(quoted), `"`))
	}
	if strings.Contains(secret, "\n") {
		for line := range strings.Lines(secret) {
			if line = strings.TrimSpace(line); len(line) >= keyLine {
				ways = append(ways, line)
			}
		}
	}
	return ways
}

// Mask replaces every known secret in text.
func (s *Secrets) Mask(text string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.masker == nil {
		return text
	}
	return s.masker.Replace(text)
}

// MaskRun is a report without secrets in what was said by others: reasons, problems, alarms, places. No part of Backstay writes them
// there; what a server repeats in its answers is another matter. What things are called stays.
func (s *Secrets) MaskRun(run point.Run) point.Run {
	run.Problems, run.Warnings = s.problems(run.Problems), s.all(run.Warnings)
	if run.Storage != nil {
		storage := *run.Storage
		storage.Location = s.Mask(storage.Location)
		run.Storage = &storage
	}
	run.Sources = slices.Clone(run.Sources)
	for i := range run.Sources {
		source := &run.Sources[i]
		source.Problems, source.Alarms = s.problems(source.Problems), s.all(source.Alarms)
		source.Repositories = slices.Clone(source.Repositories)
		for j := range source.Repositories {
			r := &source.Repositories[j]
			r.Reason = s.Mask(r.Reason)
			r.Deliveries = slices.Clone(r.Deliveries)
			for k := range r.Deliveries {
				d := &r.Deliveries[k]
				d.Place, d.Reason, d.Hints = s.Mask(d.Place), s.Mask(d.Reason), s.all(d.Hints)
			}
		}
	}
	return run
}

func (s *Secrets) problems(all []point.Problem) []point.Problem {
	all = slices.Clone(all)
	for i := range all {
		all[i].What, all[i].Hints = s.Mask(all[i].What), s.all(all[i].Hints)
	}
	return all
}

func (s *Secrets) all(texts []string) []string {
	texts = slices.Clone(texts)
	for i := range texts {
		texts[i] = s.Mask(texts[i])
	}
	return texts
}

// Handler masks secrets in what reaches h: messages, keys, and values of every kind.
func (s *Secrets) Handler(h slog.Handler) slog.Handler { return maskingHandler{h, s} }

type maskingHandler struct {
	next    slog.Handler
	secrets *Secrets
}

// Enabled implements slog.Handler.
func (h maskingHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h maskingHandler) Handle(ctx context.Context, r slog.Record) error {
	masked := slog.NewRecord(r.Time, r.Level, h.secrets.Mask(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		masked.AddAttrs(h.attr(a))
		return true
	})
	return h.next.Handle(ctx, masked)
}

// WithAttrs implements slog.Handler.
func (h maskingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	masked := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		masked[i] = h.attr(a)
	}
	return maskingHandler{h.next.WithAttrs(masked), h.secrets}
}

// WithGroup implements slog.Handler.
func (h maskingHandler) WithGroup(name string) slog.Handler {
	return maskingHandler{h.next.WithGroup(h.secrets.Mask(name)), h.secrets}
}

func (h maskingHandler) attr(a slog.Attr) slog.Attr {
	return slog.Attr{Key: h.secrets.Mask(a.Key), Value: h.value(a.Value.Resolve())}
}

func (h maskingHandler) value(v slog.Value) slog.Value {
	switch v.Kind() {
	case slog.KindString:
		return slog.StringValue(h.secrets.Mask(v.String()))
	case slog.KindGroup:
		var masked []slog.Attr
		for _, a := range v.Group() {
			masked = append(masked, h.attr(a))
		}
		return slog.GroupValue(masked...)
	case slog.KindAny:
		return h.any(v)
	default:
		return v
	}
}

// any leaves a value as it is, unless one of the ways in which it may be printed shows a secret: then it becomes masked text.
func (h maskingHandler) any(v slog.Value) slog.Value {
	if err, ok := v.Any().(error); ok {
		return slog.StringValue(h.secrets.Mask(err.Error()))
	}
	for _, text := range printed(v.Any()) {
		if masked := h.secrets.Mask(text); masked != text {
			return slog.StringValue(masked)
		}
	}
	return v
}

// printed are the ways in which handlers print a value.
func printed(v any) []string {
	ways := []string{fmt.Sprintf("%+v", v), fmt.Sprintf("%s", v)} // the second for bytes
	if document, err := json.Marshal(v); err == nil {
		ways = append(ways, string(document))
	}
	if m, ok := v.(encoding.TextMarshaler); ok {
		if text, err := m.MarshalText(); err == nil {
			ways = append(ways, string(text))
		}
	}
	return ways
}
