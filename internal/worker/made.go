package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/protect"
)

// made is what a Blueprint made for a point: enough to bring it back, and to remove it, when the Blueprint is gone from the cluster.
type made struct {
	Object    blueprint.ObjectReference     `json:"object"`
	Kind      string                        `json:"kind"`             // of the object: Deployment
	Claims    []string                      `json:"claims,omitempty"` // NAMESPACE/NAME, whose data is left to the Blueprint
	Profile   string                        `json:"profile,omitempty"`
	Options   map[string]string             `json:"options,omitempty"`
	Artifacts map[string]blueprint.Artifact `json:"artifacts,omitempty"`
	Blueprint *blueprint.Blueprint          `json:"blueprint"`
}

// name is the object as messages have it.
func (m *made) name() string {
	return strings.TrimPrefix(m.Kind+" "+m.Object.Namespace+"/"+m.Object.Name, "/")
}

// artifactsSource is the one part that says what a Blueprint made.
type artifactsSource struct {
	subject    point.Subject
	name, mark string
	at         time.Time
	made       made
}

func (s artifactsSource) Subject() point.Subject { return s.subject }

func (s artifactsSource) Capture(ctx context.Context, to point.Sink) error {
	content, err := json.MarshalIndent(s.made, "", "  ")
	if err != nil {
		return fmt.Errorf("encode artifacts: %w", err)
	}
	w, err := to.Part(ctx, s.name, kindArtifacts)
	if err != nil {
		return err
	}
	if _, err := w.Put(ctx, point.Entry{Name: artifactsFile, Time: s.at}, bytes.NewReader(content), point.Text); err != nil {
		return err
	}
	return w.Store(ctx, point.Part{Mark: s.mark, Captured: &s.at})
}

// isActed reports whether a part is of a Blueprint.
func isActed(name string) bool { return strings.HasPrefix(name, partBlueprints+"/") }

// readMade reads what Blueprints made for a point.
func readMade(ctx context.Context, record *point.Record, tree point.Reader) ([]made, error) {
	var all []made
	for _, p := range record.Point.Parts {
		if p.Kind != kindArtifacts || !isActed(p.Name) || p.State != point.Stored && p.State != point.Carried {
			continue
		}
		m, err := readOneMade(ctx, protect.Within(tree, p.Name))
		if err != nil {
			return nil, fault.Wrap("read "+p.Name, nil, err, "")
		}
		all = append(all, *m)
	}
	return all, nil
}

func readOneMade(ctx context.Context, r point.Reader) (*made, error) {
	f, err := r.Open(ctx, artifactsFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxArtifacts+1))
	if err != nil {
		return nil, err
	}
	var m made
	if len(content) > maxArtifacts || json.Unmarshal(content, &m) != nil || m.Blueprint == nil {
		return nil, fault.New("", fault.ErrCorrupt, "it does not say what a Blueprint made", "")
	}
	return &m, nil
}
