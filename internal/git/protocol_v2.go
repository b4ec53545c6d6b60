package git

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// lsRefsRequest asks for every ref, with what annotated tags peel to and what symbolic refs point to.
func lsRefsRequest(s *server, agent string) []byte {
	b := appendPkt(nil, "command=ls-refs")
	b = appendCapabilities(b, s, agent)
	b = append(b, delimPkt...)
	b = appendPkt(b, "peel")
	b = appendPkt(b, "symrefs")
	if hasWord(s.caps["ls-refs"], "unborn") {
		b = appendPkt(b, "unborn")
	}
	return append(b, flushPkt...)
}

func appendCapabilities(b []byte, s *server, agent string) []byte {
	if _, ok := s.caps["agent"]; ok {
		b = appendPkt(b, "agent="+agent)
	}
	if _, ok := s.caps["object-format"]; ok {
		b = appendPkt(b, "object-format="+s.format)
	}
	return b
}

// parseLsRefs reads the answer to ls-refs up to its flush.
func parseLsRefs(pkts *pktReader, refs *refCollector) error {
	for {
		line, kind, err := pkts.line()
		switch {
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case kind == pktFlush:
			return nil
		case kind != pktData:
			return malformed("a delimiter inside a list of refs")
		}
		ref, err := parseRefV2(line)
		if err != nil {
			return err
		}
		if err := refs.add(ref, len(line)); err != nil {
			return err
		}
	}
}

// parseRefV2 reads "<oid> <name>[ symref-target:<name>][ peeled:<oid>]", or "unborn <name> symref-target:<name>".
func parseRefV2(line string) (Ref, error) {
	words := strings.Split(line, " ")
	if len(words) < 2 {
		return Ref{}, malformed("%.100q where a ref should be", line)
	}
	ref := Ref{OID: words[0], Name: words[1]}
	for _, w := range words[2:] {
		if target, ok := strings.CutPrefix(w, "symref-target:"); ok {
			ref.Target = target
		} else if peeled, ok := strings.CutPrefix(w, "peeled:"); ok {
			ref.Peeled = peeled
		}
	}
	if ref.OID == "unborn" {
		ref.OID = ""
		if ref.Target == "" {
			return Ref{}, malformed("%.100q: an unborn ref without target", line)
		}
	}
	return ref, nil
}

// fetchRequestV2 asks for a pack that needs nothing beside itself, without any negotiation.
func fetchRequestV2(s *server, agent string, wants, haves []string) []byte {
	b := appendPkt(nil, "command=fetch")
	b = appendCapabilities(b, s, agent)
	b = append(b, delimPkt...)
	b = appendPkt(b, "ofs-delta")
	b = appendPkt(b, "no-progress")
	for _, oid := range wants {
		b = appendPkt(b, "want "+oid)
	}
	for _, oid := range haves {
		b = appendPkt(b, "have "+oid)
	}
	b = appendPkt(b, "done")
	return append(b, flushPkt...)
}

// parseFetchV2 reads up to the pack. After our "done" nothing is acknowledged any more.
func parseFetchV2(_ *server, pkts *pktReader) (io.Reader, error) {
	line, kind, err := pkts.line()
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	case kind != pktData:
		return nil, malformed("no pack in the answer")
	case line == "shallow-info":
		return nil, errShallow()
	case line != "packfile":
		return nil, malformed("section %.100q in the answer", line)
	}
	return &packReader{pkts: pkts}, nil
}

func errShallow() error {
	return fault.New("", fault.ErrUnsupported, "the source is a shallow clone: it does not hold its whole history",
		"back up the repository it was cloned from, or run git fetch --unshallow in it")
}

// server is what a greeting says.
type server struct {
	version int
	format  string            // of object ids
	caps    map[string]string // capabilities and their values
}

// maxCapabilities bounds the lines of a v2 greeting.
const maxCapabilities = 1000

// parseGreeting reads a server's first words up to their flush. What v0 and v1 list goes to refs.
func parseGreeting(pkts *pktReader, refs *refCollector) (*server, error) {
	line, kind, err := pkts.line()
	if err == nil && kind == pktData && strings.HasPrefix(line, "# service=") {
		if _, kind, err = pkts.next(); err == nil && kind == pktFlush {
			line, kind, err = pkts.line()
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil, errHangUp
	case err != nil:
		return nil, err
	case kind == pktData && line == "version 2":
		return parseCapabilitiesV2(pkts)
	case kind == pktData && line == "version 1":
		line, kind, err = pkts.line()
		if err != nil {
			return nil, err
		}
		return parseAdvertisement(pkts, line, kind, 1, refs)
	default:
		return parseAdvertisement(pkts, line, kind, 0, refs)
	}
}

func parseCapabilitiesV2(pkts *pktReader) (*server, error) {
	s := &server{version: 2, format: "sha1", caps: map[string]string{}}
	for range maxCapabilities {
		line, kind, err := pkts.line()
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case kind == pktFlush:
			return s, s.check()
		case kind != pktData:
			return nil, malformed("a delimiter inside a greeting")
		}
		name, value, _ := strings.Cut(line, "=")
		s.caps[name] = value
	}
	return nil, malformed("a greeting of more than %d lines", maxCapabilities)
}

// check makes sure that the server can do what is asked of it.
func (s *server) check() error {
	if format := s.caps["object-format"]; format != "" {
		s.format = format
	}
	if oidLength(s.format) == 0 {
		return fault.New("", fault.ErrUnsupported, fmt.Sprintf("the repository's object format %.20q is not known", s.format), "")
	}
	if s.version < 2 {
		return nil
	}
	for _, command := range []string{"ls-refs", "fetch"} {
		if _, ok := s.caps[command]; !ok {
			return fault.New("", fault.ErrUnsupported, "the server offers no "+command, "")
		}
	}
	return nil
}

// hasWord reports whether word is one of the words of list.
func hasWord(list, word string) bool {
	for w := range strings.FieldsSeq(list) {
		if w == word {
			return true
		}
	}
	return false
}
