package git

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// parseAdvertisement reads the ref list that v0 and v1 begin with; line and kind are its first packet.
func parseAdvertisement(pkts *pktReader, line string, kind pktKind, version int, refs *refCollector) (*server, error) {
	s := &server{version: version, format: "sha1", caps: map[string]string{}}
	line, list, _ := strings.Cut(line, "\x00")
	symrefs := s.addCapabilities(list)
	if err := s.check(); err != nil {
		return nil, err
	}
	refs.format = s.format
	for {
		switch {
		case kind == pktFlush:
			return s, nil
		case kind != pktData:
			return nil, malformed("a delimiter inside a list of refs")
		case strings.HasPrefix(line, "shallow "):
			return nil, errShallow()
		}
		if err := refs.addV0(line, symrefs); err != nil {
			return nil, err
		}
		var err error
		switch line, kind, err = pkts.line(); {
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
	}
}

// addCapabilities reads the capabilities of v0, and returns the symbolic refs and their targets among them.
func (s *server) addCapabilities(list string) map[string]string {
	symrefs := map[string]string{}
	for word := range strings.FieldsSeq(list) {
		name, value, _ := strings.Cut(word, "=")
		if name == "symref" {
			from, to, _ := strings.Cut(value, ":")
			symrefs[from] = to
			continue
		}
		s.caps[name] = value
	}
	return symrefs
}

// addV0 adds the ref of a line "<oid> <name>", or what the ref before peels to: "<oid> <name>^{}".
func (c *refCollector) addV0(line string, symrefs map[string]string) error {
	oid, name, ok := strings.Cut(line, " ")
	switch {
	case !ok:
		return malformed("%.100q where a ref should be", line)
	case name == "capabilities^{}": // of a repository without refs
		return nil
	}
	if of, peeled := strings.CutSuffix(name, "^{}"); peeled {
		return c.peel(of, oid)
	}
	return c.add(Ref{Name: name, OID: oid, Target: symrefs[name]}, len(line))
}

// fetchRequestV0 is the request of v0 and v1, with those of our capabilities that the server has.
func fetchRequestV0(s *server, agent string, wants, haves []string) []byte {
	var caps strings.Builder
	for _, c := range []string{s.sideBand(), "ofs-delta", "no-progress"} {
		if _, ok := s.caps[c]; ok {
			caps.WriteString(" " + c)
		}
	}
	if _, ok := s.caps["object-format"]; ok {
		caps.WriteString(" object-format=" + s.format)
	}
	if _, ok := s.caps["agent"]; ok {
		caps.WriteString(" agent=" + agent)
	}
	var b []byte
	for i, oid := range wants {
		if i == 0 {
			oid += caps.String()
		}
		b = appendPkt(b, "want "+oid)
	}
	b = append(b, flushPkt...)
	for _, oid := range haves {
		b = appendPkt(b, "have "+oid)
	}
	return appendPkt(b, "done")
}

// sideBand is the capability by which the server can multiplex its answer; "" for none.
func (s *server) sideBand() string {
	for _, c := range []string{"side-band-64k", "side-band"} {
		if _, ok := s.caps[c]; ok {
			return c
		}
	}
	return ""
}

// maxAcks bounds the acknowledgements of a server.
const maxAcks = 1_000_000

// parseFetchV0 reads up to the pack. Without multi_ack the server acknowledges what is in common once or a few times, or says NAK.
func parseFetchV0(s *server, pkts *pktReader) (io.Reader, error) {
	for n := 0; n == 0 || pkts.acknowledges(); n++ {
		data, kind, err := pkts.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case kind != pktData || (!bytes.HasPrefix(data, []byte("NAK")) && !bytes.HasPrefix(data, []byte("ACK "))):
			return nil, malformed("%.100q where the server should acknowledge", data)
		case n > maxAcks:
			return nil, malformed("more than %d acknowledgements", maxAcks)
		}
	}
	if s.sideBand() == "" {
		return pkts.r, nil // the bare pack, up to the end of the stream
	}
	return &packReader{pkts: pkts}, nil
}

// acknowledges reports whether the next packet does.
func (p *pktReader) acknowledges() bool {
	head, err := p.r.Peek(8)
	return err == nil && (string(head[4:]) == "ACK " || string(head[4:]) == "NAK\n")
}
