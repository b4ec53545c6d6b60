package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits on what is read. Files are written by people; what is beyond these was not.
const (
	maxFile      = 4 << 20 // bytes
	maxDocuments = 1000    // of one file
	maxNodes     = 200_000 // of one document, an alias counted each time it is followed
	maxDepth     = 40      // of one document
	maxProblems  = 100     // reported
)

// document is one document of a stream.
type document struct {
	file  string
	index int        // in its file, from 0
	root  *yaml.Node // nil where the document is empty
	line  int        // of the root, or of the empty document's place
}

// parse splits a stream into its documents. The problem, if any, ends the stream: documents before it are returned.
func parse(file string, data []byte) ([]document, *Problem) {
	if len(data) > maxFile {
		return nil, &Problem{File: file, Message: fmt.Sprintf("larger than %d MiB", maxFile>>20)}
	}
	var all []document
	from := yaml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	for {
		var n yaml.Node
		err := from.Decode(&n)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, syntaxProblem(file, err)
		}
		if len(all) == maxDocuments {
			return all, &Problem{File: file, Line: n.Line, Message: fmt.Sprintf("more than %d documents", maxDocuments)}
		}
		d := document{file: file, index: len(all), line: n.Line}
		if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
			d.root = n.Content[0]
			d.line = d.root.Line
			if d.root.Kind == yaml.ScalarNode && d.root.Tag == "!!null" && d.root.Value == "" {
				d.root = nil
			}
		}
		all = append(all, d)
	}
}

var (
	syntaxLine = regexp.MustCompile(`^line (\d+): `)
	quotedText = regexp.MustCompile(`[ ]?(?:'[^']*'|"[^"]*"|` + "`[^`]*`" + `)`)
)

// syntaxProblem says what the parser said, without the piece of the file that it quotes: that may be a secret.
func syntaxProblem(file string, err error) *Problem {
	said := strings.TrimPrefix(err.Error(), "yaml: ")
	p := &Problem{File: file, Line: 1} // of which the parser says nothing
	if m := syntaxLine.FindStringSubmatch(said); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		said = said[len(m[0]):]
	}
	switch {
	case strings.Contains(said, "unknown anchor"):
		said = "an alias to nothing: text that begins with * stands in quotes"
	case strings.Contains(said, "cannot start any token"):
		said = "a value that begins with @, ` or a tab: it stands in quotes"
	case strings.Contains(said, "did not find expected alphabetic or numeric character"):
		said = "a value that begins with * or &: it stands in quotes"
	default:
		said, _, _ = strings.Cut(quotedText.ReplaceAllString(said, ""), "\n")
	}
	p.Message = "not YAML: " + said
	return p
}
