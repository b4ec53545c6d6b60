package blueprint

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/internal/fault"
)

// Redact masks what p has of Secrets and of the Profile's credentials.
func Redact(text string, p *Params) string {
	var m masks
	m.add(p)
	return m.text(text)
}

// masks are the secrets that may not be said. Safe for concurrent use; the zero value masks nothing.
type masks struct {
	mu      sync.Mutex
	secrets []fault.Secret // longest first, as one may begin with another
	open    strings.Builder
}

// leave has what text holds stay as it is: it can be read elsewhere. Without it the name of a database that stands both in a Secret and
// in the Blueprint would be missing from every artifact.
func (m *masks) leave(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open.WriteString(text)
	m.open.WriteByte('\n')
	m.secrets = slices.DeleteFunc(m.secrets, func(s fault.Secret) bool { return strings.Contains(text, s.Reveal()) })
}

// leaveJSON is leave for whatever has JSON.
func (m *masks) leaveJSON(v any) {
	if text, err := json.Marshal(v); err == nil { // else it all stays masked
		m.leave(string(text))
	}
}

// add masks what p has of Secrets and credentials.
func (m *masks) add(p *Params) {
	m.addSecrets(p.Secrets)
	for _, phase := range p.Phases {
		m.addPhase(phase)
	}
	m.addPhase(p.DeferPhase)
	m.addPhase(p.CurrentPhase)
	d, err := p.ProfileDocument()
	if err != nil || d == nil {
		return
	}
	if k := d.Credential.KeyPair; k != nil {
		m.hide(k.ID, k.Secret)
	}
	if d.Credential.Secret != nil {
		m.addSecrets(map[string]corev1.Secret{"": *d.Credential.Secret})
	}
	if k := d.Credential.KopiaServerSecret; k != nil {
		m.hide(k.Password)
	}
	if d.Vault != nil {
		m.hide(d.Vault.Password)
		for _, value := range d.Vault.Credentials {
			m.hide(value)
		}
	}
}

func (m *masks) addPhase(p *PhaseParams) {
	if p != nil {
		m.addSecrets(p.Secrets)
	}
}

func (m *masks) addSecrets(secrets map[string]corev1.Secret) {
	for _, s := range secrets {
		for _, value := range s.Data {
			m.hide(string(value))
		}
		for _, value := range s.StringData {
			m.hide(value)
		}
	}
}

// hide masks values: as they are, as Secrets have them in JSON, and line by line, as logs have them.
func (m *masks) hide(values ...string) {
	const (
		shortest     = 4  // what fault.Redact masks
		shortestLine = 16 // of a longer secret, such as a key in PEM
	)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, value := range values {
		forms := []string{value, strings.TrimSpace(value), base64.StdEncoding.EncodeToString([]byte(value))}
		for line := range strings.Lines(value) {
			if line = strings.TrimSpace(line); len(line) >= shortestLine && !strings.HasPrefix(line, "-----") {
				forms = append(forms, line)
			}
		}
		for _, form := range forms {
			if len(form) >= shortest && !slices.Contains(m.secrets, fault.Secret(form)) && !strings.Contains(m.open.String(), form) {
				m.secrets = append(m.secrets, fault.Secret(form))
			}
		}
	}
	slices.SortStableFunc(m.secrets, func(a, b fault.Secret) int { return len(b) - len(a) })
}

// text is a text without secrets.
func (m *masks) text(s string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fault.Redact(s, m.secrets...)
}

// hold reports whether a text holds a secret.
func (m *masks) hold(s string) bool { return m.text(s) != s }

// value is JSON without secrets, in names and values of any depth.
func (m *masks) value(v any) any {
	switch v := v.(type) {
	case string:
		return m.text(v)
	case map[string]any:
		return m.object(v)
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = m.value(v[i])
		}
		return c
	}
	return v
}

func (m *masks) object(o map[string]any) map[string]any {
	if o == nil {
		return nil
	}
	c := make(map[string]any, len(o))
	for k, v := range o {
		c[m.text(k)] = m.value(v)
	}
	return c
}

// status is a copy of a status, without secrets.
func (m *masks) status(s *ActionSetStatus) *ActionSetStatus {
	c := s.DeepCopy()
	c.Error.Message = m.text(c.Error.Message)
	for i := range c.Actions {
		a := &c.Actions[i]
		for j := range a.Phases {
			a.Phases[j].Output = m.object(a.Phases[j].Output)
		}
		a.DeferPhase.Output = m.object(a.DeferPhase.Output)
	}
	return c
}

// masked reports whether a secret was taken out of v.
func masked(v any) bool {
	text, err := json.Marshal(v)
	return err == nil && strings.Contains(string(text), fault.Secret("").String())
}
