package blueprint

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/backstay/backstay/internal/fault"
)

// Limits of a file of documents.
const (
	mostBytes     = 4 << 20 // about three times what a cluster keeps of one object
	mostDocuments = 1000
)

// Documents are what a file holds, in its order.
type Documents struct {
	Blueprints []*Blueprint
	ActionSets []*ActionSet
	Profiles   []*Profile
	// Unknown are fields that are not read, and fields that stand there twice: DOCUMENT: FIELD.
	Unknown []string
	// Others are documents of other kinds: KIND NAME.
	Others []string
}

// Parse reads a YAML or JSON file of documents. Documents of other kinds are named, not read. An error is fault.ErrInvalid, or one of r.
func Parse(r io.Reader) (*Documents, error) {
	limited := &io.LimitedReader{R: r, N: mostBytes + 1}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(limited))
	decoder, err := newDecoder()
	if err != nil {
		return nil, err
	}
	found := &Documents{}
	for i := 1; ; i++ {
		text, err := reader.Read()
		switch {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("read documents: %w", err)
		case limited.N == 0 || i > mostDocuments:
			return nil, fault.New("read documents", fault.ErrInvalid, fmt.Sprintf("more than %d MiB, or %d documents", mostBytes>>20, mostDocuments), "")
		}
		if err := found.add(decoder, text); err != nil {
			return nil, fault.Wrap(fmt.Sprintf("document %d", i), fault.ErrInvalid, err, "")
		}
	}
}

// newDecoder reads documents as an API server does, and tells what it would drop.
func newDecoder() (runtime.Decoder, error) {
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		return nil, err
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true}), nil
}

func (d *Documents) add(decoder runtime.Decoder, text []byte) error {
	var head struct {
		metav1.TypeMeta `json:",inline"`

		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	var content any
	if err := yaml.Unmarshal(text, &content); err != nil || content == nil {
		return err
	}
	if err := yaml.Unmarshal(text, &head); err != nil {
		return err
	}
	name := head.Kind + " " + head.Metadata.Name
	if head.GroupVersionKind().GroupVersion() != GroupVersion {
		d.Others = append(d.Others, name)
		return nil
	}
	object, _, err := decoder.Decode(text, nil, nil)
	if strict, is := runtime.AsStrictDecodingError(err); is {
		for _, e := range strict.Errors() {
			d.Unknown = append(d.Unknown, name+": "+e.Error())
		}
	} else if runtime.IsNotRegisteredError(err) {
		d.Others = append(d.Others, name)
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	switch object := object.(type) {
	case *Blueprint:
		d.Blueprints = append(d.Blueprints, object)
	case *ActionSet:
		d.ActionSets = append(d.ActionSets, object)
	case *Profile:
		d.Profiles = append(d.Profiles, object)
	default:
		d.Others = append(d.Others, name)
	}
	return nil
}
