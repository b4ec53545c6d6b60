package blueprint

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/internal/fault"
)

// stranger is what templates see in these tests.
func stranger() *Params {
	return &Params{
		StatefulSet: &WorkloadParams{Name: "db", Namespace: "shop", Pods: []string{"db-0", "db-1"}, Containers: [][]string{{"main", "side"}, {"main"}}},
		Object:      map[string]any{"metadata": map[string]any{"name": "db"}, "spec": map[string]any{"replicas": int64(2)}, "none": nil},
		ArtifactsIn: map[string]Artifact{"dump": {KeyValue: map[string]string{"path": "/a/b"}, KopiaSnapshot: "k1"}},
		Secrets:     map[string]corev1.Secret{"key": {Data: map[string][]byte{"password": []byte("hunter2")}}},
		Options:     map[string]string{"size": "8Gi"},
		Time:        "2026-01-02T03:04:05.000000006Z",
		Profile: &ProfileParams{
			Location:   ProfileLocation{Type: LocationS3, Bucket: "b"},
			Credential: CredentialParams{Type: CredentialKeyPair, KeyPair: &KeyPairParams{ID: "id", Secret: "s"}},
		},
		Phases: map[string]*PhaseParams{"one": {Output: map[string]any{"n": int64(3), "list": []any{"x", "y"}}}},
	}
}

func TestRender(t *testing.T) {
	tests := []struct{ text, want string }{
		{"plain", "plain"},
		{"{{ .StatefulSet.Namespace }}/{{ index .StatefulSet.Pods 0 }}", "shop/db-0"},
		{"{{ index .StatefulSet.Containers 0 1 }}", "side"},
		{"{{ range .StatefulSet.Pods }}{{ . }} {{ end }}", "db-0 db-1 "},
		{"{{ range $i, $p := .StatefulSet.Pods }}{{ if $i }},{{ end }}{{ $p | quote }}{{ end }}", `"db-0","db-1"`},
		{"{{ with .ArtifactsIn.dump }}{{ .KeyValue.path }}{{ end }}", "/a/b"},
		{"{{ .ArtifactsIn.dump.KopiaSnapshot }}", "k1"},
		{"{{ index .Secrets.key.Data `password` | toString }}", "hunter2"},
		{"{{ toDate `2006-01-02T15:04:05.999999999Z07:00` .Time | date `2006-01-02` }}", "2026-01-02"},
		{"{{ .Phases.one.Output.n }} {{ len .Phases.one.Output.list }}", "3 2"},
		{"{{ if .Deployment }}yes{{ else }}no{{ end }}", "no"},
		{"{{ .Object.none }}", "<no value>"}, // as text/template has it
		{"{{ printf `%s-%03d` .Object.metadata.name .Object.spec.replicas }}", "db-002"},
		{"{{ define `x` }}[{{ . }}]{{ end }}{{ template `x` .Options.size }}", "[8Gi]"},
		{"{{ $x := `a` }}{{ range until 3 }}{{ $x = cat $x . }}{{ end }}{{ $x }}", "a 0 1 2"},
		{"{{ merge (dict `a` 1) (dict `b` 2) | toJson }}", `{"a":1,"b":2}`},
		{"{{ dict `a` (list 1 2) | toPrettyJson }}", "{\n  \"a\": [\n    1,\n    2\n  ]\n}"},
		{"{{ untilStep 5 1000000 250000 | toJson }}", "[5,250005,500005,750005]"},
		{
			"{{ toJson .Profile }}",
			`{"Location":{"type":"s3Compliant","bucket":"b","endpoint":"","prefix":"","region":""},` +
				`"Credential":{"Type":"keyPair","KeyPair":{"ID":"id","Secret":"s"},"Secret":null,"KopiaServerSecret":null},"SkipSSLVerify":false}`,
		},
	}
	for _, test := range tests {
		got, err := Render(t.Context(), test.text, stranger(), nil)
		if err != nil || got != test.want {
			t.Errorf("%s\n got %q, %v\nwant %q", test.text, got, err, test.want)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	t.Setenv("BACKSTAY_TEST_SECRET", "hunter2")
	for _, text := range []string{
		"{{ .Options.none }}", "{{ .Deployment.Name }}", "{{ .NoSuch }}", "{{ .Phases.two.Output.x }}", "{{ fail `no` }}",
		"{{ env `BACKSTAY_TEST_SECRET` }}", "{{ expandenv `$BACKSTAY_TEST_SECRET` }}", "{{ getHostByName `example.org` }}",
		"{{ bcrypt `x` }}", "{{ htpasswd `a` `b` }}", "{{ derivePassword 1 `long` `a` `b` `c` }}", "{{ genPrivateKey `dsa` }}",
		"{{ if }}", "{{", "{{ index .StatefulSet.Pods 7 }}", "{{ call .Time }}",
	} {
		got, err := Render(t.Context(), text, stranger(), nil)
		if !errors.Is(err, fault.ErrInvalid) || got != "" {
			t.Errorf("%s: %q, %v", text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// bombs are templates that would take all memory, all time, or the whole process with its stack.
func bombs() []string {
	return []string{
		"{{ range 9000000000000 }}{{ end }}",
		"{{ range until 1000 }}{{ range until 1000 }}{{ range until 1000 }}{{ end }}{{ end }}{{ end }}",
		"{{ until 1000000000 }}", "{{ untilStep 0 9223372036854775807 9223372036854775806 }}", "{{ seq 1 1000000000 }}", "{{ seq 0 2000000000 2 }}",
		"{{ repeat 1000000000 `x` }}", "{{ repeat 9223372036854775807 `xx` }}",
		"{{ indent 1000000000 `x` }}", "{{ nindent 4000 (repeat 4000 `\n`) }}",
		"{{ printf `%1000000000d` 1 }}", "{{ printf `%*d` 1000000000 1 }}", "{{ printf `%.1000000000f` 1.0 }}", "{{ printf `%[1]*d` 1000000000 1 }}",
		"{{ randAlphaNum 1000000000 }}", "{{ randBytes 1000000000 }}",
		"{{ $x := repeat 100000 `x` }}{{ replace `x` $x $x }}", "{{ $x := repeat 100000 `x` }}{{ join $x (until 10000) }}",
		"{{ $x := repeat 100000 `x` }}{{ regexReplaceAll `x` $x $x }}", "{{ $x := repeat 100000 `a b ` }}{{ wrapWith 1 $x $x }}",
		"{{ $x := `ab` }}{{ range until 60 }}{{ $x = print $x $x }}{{ end }}{{ len $x }}",
		"{{ $x := list 1 }}{{ range until 60 }}{{ $x = list $x $x }}{{ end }}{{ toJson $x }}",
		"{{ $x := list 1 }}{{ range until 60 }}{{ $x = list $x $x }}{{ end }}{{ $x }}",
		"{{ $x := dict }}{{ range until 60 }}{{ $x = dict `a` $x `b` $x }}{{ end }}{{ deepCopy $x }}",
		"{{ $d := dict }}{{ $_ := set $d `a` $d }}{{ $d }}", "{{ $d := dict }}{{ $_ := set $d `a` $d }}{{ toJson $d }}",
		"{{ $d := dict }}{{ $_ := set $d `a` (list $d) }}{{ printf `%v` $d }}",
		"{{ $d := dict `a` (dict `a` (dict)) }}{{ $_ := mergeOverwrite $d (dict `a` $d) }}{{ range until 500 }}{{ $_ := mergeOverwrite $d (dict `a` $d) }}{{ end }}",
		"{{ $x := list }}{{ range until 20000 }}{{ $x = list $x }}{{ end }}{{ toPrettyJson $x }}",
		"{{ define `x` }}{{ template `x` }}{{ end }}{{ template `x` }}",
		"{{ define `x` }}{{ range . }}{{ template `x` $ }}{{ end }}{{ end }}{{ template `x` (until 9) }}",
		"{{ $x := repeat 100000 `a` }}{{ regexMatch `(a{1000}b{1000}c{1000}d{1000}){1}e` $x }}{{ regexMatch `((a?){30}){30}$` $x }}",
		"{{ range until 100000 }}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{{ end }}",
		strings.Repeat("{{if 1}}", 9000) + strings.Repeat("{{end}}", 9000),
		strings.Repeat("{{range 1}}", 9000) + strings.Repeat("{{end}}", 9000),
		"{{ " + strings.Repeat("(", 20000) + "1" + strings.Repeat(")", 20000) + " }}",
	}
}

func TestBombsDoNotGoOff(t *testing.T) {
	const most = 5 * time.Second // of the processor: what else the machine does is not counted
	for i, text := range bombs() {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			began := processorTime(t)
			got, err := Render(t.Context(), text, stranger(), nil)
			took := processorTime(t) - began
			t.Logf("%.80s: %s, %.80v", text, took, err)
			if took > most {
				t.Errorf("it took %s", took)
			}
			if !errors.Is(err, fault.ErrInvalid) {
				t.Errorf("%v: %.80q", err, got)
			}
		})
	}
}

// processorTime is what this process has used so far.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestRenderingEndsInTime(t *testing.T) {
	asked := 0
	b := &bounds{stop: func() error {
		if asked++; asked > 100 {
			return context.DeadlineExceeded
		}
		return nil
	}}
	for _, text := range []string{"{{ range 9000 }}{{ end }}", "{{ range until 9000 }}{{ trim `x` }}{{ end }}"} {
		parsed, err := parseTemplate(text, b)
		if err != nil {
			t.Fatal(err)
		}
		if err := parsed.Execute(io.Discard, nil); !errors.Is(err, errTooMuch) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
