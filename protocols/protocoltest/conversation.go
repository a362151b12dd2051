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

// A Step is one action of one side: it sends Data, or bytes that are not in the capture (Gap), or its FIN (End).
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

// Client returns a step of the client.
func Client(data string) Step { return Step{Dir: protocols.Client, Data: []byte(data)} }

// Server returns a step of the server.
func Server(data string) Step { return Step{Dir: protocols.Server, Data: []byte(data)} }

// ReadTranscript reads a transcript. The forms of its lines are
//
//	# a comment
//	port 80          udp          midstream
//	> "bytes of the client, as a Go string"
//	< "bytes of the server"
//	> gap 100
//	< end
//	+ 500            (ms that pass)
func ReadTranscript(path string) (Conversation, error) {
	conversation := Conversation{Name: path}
	data, err := os.ReadFile(path)
	if err != nil {
		return conversation, fmt.Errorf("read transcript: %w", err)
	}
	var wait int64
	now := int64(0)
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := conversation.line(line, &wait); err != nil {
			return conversation, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		if n := len(conversation.Steps); n > 0 && conversation.Steps[n-1].At == 0 {
			now += 1 + wait
			wait = 0
			conversation.Steps[n-1].At = now
		}
	}
	return conversation, nil
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
		step := Step{Dir: protocols.Client}
		if word == "<" {
			step.Dir = protocols.Server
		}
		if rest == "end" {
			step.End = true
		} else if n, ok := strings.CutPrefix(rest, "gap "); ok {
			v, err := strconv.Atoi(n)
			if err != nil {
				return err
			}
			step.Gap = v
		} else {
			v, err := strconv.Unquote(rest)
			if err != nil {
				return fmt.Errorf("unquote: %w", err)
			}
			step.Data = []byte(v)
		}
		c.Steps = append(c.Steps, step)
	default:
		return fmt.Errorf("unknown word %q", word)
	}
	return nil
}

// Info returns what the connection of c is opened with.
func (c *Conversation) Info() protocols.Info {
	port := c.Port
	if port == 0 {
		port = 40404
	}
	transport := pipeline.Transport_TCP
	if c.UDP {
		transport = pipeline.Transport_UDP
	}
	info := protocols.Info{
		Transport: transport,
		Client:    netip.MustParseAddrPort("10.0.0.1:50000"),
		Server:    netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port),
		MidStream: c.MidStream,
	}
	info.Session = pipeline.SessionID(pipeline.ID{}, transport, info.Client, info.Server, 1, Start)
	info.CommunityID = pipeline.CommunityID(transport, info.Client, info.Server)
	if c.Flipped {
		info.Client, info.Server = info.Server, info.Client
	}
	return info
}

// Play plays c to a connection of a new set over list. It returns its events as text, and the name of the
// protocol that was recognised.
func (c Conversation) Play(list []protocols.Protocol) (events []string, name string) {
	return c.PlayOn(protocols.NewSet(list, protocols.Default(), nil))
}

// PlayOn is Play on a set that exists.
func (c Conversation) PlayOn(set *protocols.Set) (events []string, name string) {
	name = c.play(set, func(e *pipeline.Event) {
		events = append(events, Text(e))
		e.ReturnToVTPool()
	})
	return events, name
}

// Events plays c to a connection of a new set over list and returns its events.
func (c Conversation) Events(list []protocols.Protocol) (events []*pipeline.Event) {
	c.play(protocols.NewSet(list, protocols.Default(), nil), func(e *pipeline.Event) { events = append(events, e) })
	return events
}

// play plays c to a connection of set and returns the name of the protocol that was recognised.
func (c Conversation) play(set *protocols.Set, emit func(*pipeline.Event)) (name string) {
	conn := set.Open(c.Info(), emit)
	at := Start
	var buf []byte
	for _, step := range c.Steps {
		if step.At > 0 {
			at = max(at, Start+step.At*1_000_000)
		} else {
			at += 1_000_000
		}
		conn.Tick(at)
		dir := step.Dir
		if c.Flipped {
			dir = dir.Other()
		}
		switch {
		case step.End:
			conn.End(dir, at)
		case step.Gap > 0:
			conn.Gap(dir, step.Gap, at)
		default:
			// The parser is given a copy that is overwritten afterwards: an event that still points into it
			// shows.
			buf = append(buf[:0], step.Data...)
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
	return name
}

// Text returns every field of event that is set, as name=value, in the order of the field table.
func Text(event *pipeline.Event) string {
	var out strings.Builder
	for i := range pipeline.Fields {
		f := &pipeline.Fields[i]
		if !f.Has(event) {
			continue
		}
		switch f.Name {
		case "network.community_id", "network.transport", "source.ip", "destination.ip", "source.port", "destination.port":
			if event.Dataset != pipeline.Dataset_DATASET_NONE {
				continue // the same for all events of a conversation
			}
		}
		if out.Len() > 0 {
			out.WriteByte(' ')
		}
		out.WriteString(f.Name + "=" + value(f, event))
	}
	return out.String()
}

func value(f *pipeline.Field, event *pipeline.Event) string {
	switch {
	case f.Str != nil:
		return strconv.Quote(f.Str(event))
	case f.Num != nil:
		return strconv.FormatInt(f.Num(event), 10)
	case f.Flag != nil:
		return strconv.FormatBool(f.Flag(event))
	case f.Time != nil:
		return strconv.FormatInt((f.Time(event)-Start)/1_000_000, 10) + "ms"
	case f.IP != nil:
		return f.IP(event).String()
	case f.Raw != nil:
		return f.Text(event)
	case f.Strs != nil:
		return fmt.Sprintf("%q", f.Strs(event, nil))
	case f.Nums != nil:
		return fmt.Sprint(f.Nums(event, nil))
	default:
		return fmt.Sprint(f.Labels(event))
	}
}
