// Package protocoltest plays conversations to parsers in tests, and holds the properties that every protocol must have.
//
// A Conversation is what two sides said, step by step; it is written in Go or read from a transcript in testdata. Play gives it to
// a connection and returns its events as text, a line each. The shared tests in protocols/all and each parser's own tests call it.
package protocoltest

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A Step is something that one side did: sent bytes, sent bytes that the capture has not (Gap), or its FIN (End).
type Step struct {
	Dir  protocols.Dir
	Data []byte
	Gap  int
	End  bool
	At   int64 // ms since Start; 0: a millisecond after the step before
}

// A Conversation is one connection.
type Conversation struct {
	Name      string
	UDP       bool
	MidStream bool
	Flipped   bool   // opened with client and server the wrong way round
	Port      uint16 // of the server
	Steps     []Step
}

// Start is the time of the first step of every conversation, ns.
const Start = int64(1_700_000_000_000_000_000)

// Client sends data, Server answers: the two make conversations readable in Go.
func Client(data string) Step { return Step{Dir: protocols.Client, Data: []byte(data)} }

// Server is a step of the server.
func Server(data string) Step { return Step{Dir: protocols.Server, Data: []byte(data)} }

// ReadTranscript reads a transcript. Its lines are
//
//	# a comment
//	port 80          udp          midstream
//	> "bytes of the client, as a Go string"
//	< "bytes of the server"
//	> gap 100
//	< end
//	+ 500            (ms that pass)
func ReadTranscript(path string) (Conversation, error) {
	c := Conversation{Name: path}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read transcript: %w", err)
	}
	var wait int64
	now := int64(0)
	for i, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := c.line(line, &wait); err != nil {
			return c, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		if n := len(c.Steps); n > 0 && c.Steps[n-1].At == 0 {
			now += 1 + wait
			wait = 0
			c.Steps[n-1].At = now
		}
	}
	return c, nil
}

func (c *Conversation) line(line string, wait *int64) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "udp":
		c.UDP = true
	case "midstream":
		c.MidStream = true
	case "port":
		n, err := strconv.ParseUint(rest, 10, 16)
		c.Port = uint16(n)
		return err
	case "+":
		n, err := strconv.ParseInt(rest, 10, 64)
		*wait += n
		return err
	case ">", "<":
		s := Step{Dir: protocols.Client}
		if word == "<" {
			s.Dir = protocols.Server
		}
		if rest == "end" {
			s.End = true
		} else if n, ok := strings.CutPrefix(rest, "gap "); ok {
			v, err := strconv.Atoi(n)
			if err != nil {
				return err
			}
			s.Gap = v
		} else {
			v, err := strconv.Unquote(rest)
			if err != nil {
				return fmt.Errorf("unquote: %w", err)
			}
			s.Data = []byte(v)
		}
		c.Steps = append(c.Steps, s)
	default:
		return fmt.Errorf("unknown word %q", word)
	}
	return nil
}

// Info is what the conversation's connection is opened with.
func (c *Conversation) Info() protocols.Info {
	port := c.Port
	if port == 0 {
		port = 40404
	}
	t := pipeline.Transport_TCP
	if c.UDP {
		t = pipeline.Transport_UDP
	}
	i := protocols.Info{
		Transport: t,
		Client:    netip.MustParseAddrPort("10.0.0.1:50000"),
		Server:    netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port),
		MidStream: c.MidStream,
	}
	i.Session = pipeline.SessionID(pipeline.ID{}, t, i.Client, i.Server, 1, Start)
	i.CommunityID = pipeline.CommunityID(t, i.Client, i.Server)
	if c.Flipped {
		i.Client, i.Server = i.Server, i.Client
	}
	return i
}

// Play plays c to a connection of a fresh set over list and returns its events, as text, and the name of its protocol.
func (c Conversation) Play(list []protocols.Protocol) (events []string, name string) {
	return c.PlayOn(protocols.NewSet(list, protocols.Default(), nil))
}

// PlayOn is Play on a set that is there.
func (c Conversation) PlayOn(set *protocols.Set) (events []string, name string) {
	conn := set.Open(c.Info(), func(e *pipeline.Event) {
		events = append(events, Text(e))
		e.ReturnToVTPool()
	})
	at := Start
	var buf []byte
	for _, s := range c.Steps {
		if s.At > 0 {
			at = max(at, Start+s.At*1_000_000)
		} else {
			at += 1_000_000
		}
		dir := s.Dir
		if c.Flipped {
			dir = dir.Other()
		}
		switch {
		case s.End:
			conn.End(dir, at)
		case s.Gap > 0:
			conn.Gap(dir, s.Gap, at)
		default:
			// The parser gets a copy that is spoilt afterwards: what it keeps of it shows.
			buf = append(buf[:0], s.Data...)
			if c.UDP {
				conn.Datagram(dir, buf, at)
			} else {
				conn.Data(dir, buf, at)
			}
			for i := range buf {
				buf[i] = 0xee
			}
		}
	}
	name = conn.Protocol()
	conn.Close(at + 1_000_000)
	return events, name
}

// Text is every field of e that says something, as name=value, in the order of the field table.
func Text(e *pipeline.Event) string {
	var b strings.Builder
	for i := range pipeline.Fields {
		f := &pipeline.Fields[i]
		if !f.Has(e) {
			continue
		}
		switch f.Name {
		case "network.community_id", "network.transport", "source.ip", "destination.ip", "source.port", "destination.port":
			if e.Dataset != pipeline.Dataset_DATASET_NONE {
				continue // the same for all events of a conversation; Check compares them
			}
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(f.Name + "=" + value(f, e))
	}
	return b.String()
}

func value(f *pipeline.Field, e *pipeline.Event) string {
	switch {
	case f.Str != nil:
		return strconv.Quote(f.Str(e))
	case f.Num != nil:
		return strconv.FormatInt(f.Num(e), 10)
	case f.Flag != nil:
		return strconv.FormatBool(f.Flag(e))
	case f.Time != nil:
		return strconv.FormatInt((f.Time(e)-Start)/1_000_000, 10) + "ms"
	case f.IP != nil:
		return f.IP(e).String()
	case f.Raw != nil:
		return f.Text(e)
	case f.Strs != nil:
		return fmt.Sprintf("%q", f.Strs(e, nil))
	case f.Nums != nil:
		return fmt.Sprint(f.Nums(e, nil))
	default:
		return fmt.Sprint(f.Labels(e))
	}
}
