package protocoltest

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A Step is one action of one side. The side sends Data, bytes that the capture lost (Gap) or its FIN (End).
type Step struct {
	Dir  protocols.Dir
	Data []byte
	Gap  int // number of lost bytes
	End  bool
	At   int64 // ms since Start; 0: a millisecond after the step before
}

// A Conversation is a connection as the steps of its two sides. The zero value is a TCP connection that
// begins with a SYN.
type Conversation struct {
	Name       string // path of the transcript
	UDP        bool
	MidStream  bool   // no SYN was seen
	Flipped    bool   // opened with client and server the wrong way round
	Port       uint16 // of the server
	ClientPort uint16 // 0: 50000
	ServerIP   string // "": 10.0.0.2
	Steps      []Step
}

// Start is the time from which Step.At counts, in ns since 1970.
const Start = int64(1_700_000_000_000_000_000)

// Client returns a step of the client.
func Client(data string) Step { return Step{Dir: protocols.Client, Data: []byte(data)} }

// Server returns a step of the server.
func Server(data string) Step { return Step{Dir: protocols.Server, Data: []byte(data)} }

// Dialogue returns a conversation with port of the server. A line that begins with > is sent by the client, one that
// begins with < by the server.
func Dialogue(port uint16, lines ...string) Conversation {
	conversation := Conversation{Port: port}
	for _, line := range lines {
		step := Client(line[1:])
		if line[0] == '<' {
			step = Server(line[1:])
		}
		conversation.Steps = append(conversation.Steps, step)
	}
	return conversation
}

// NamedDialogue is Dialogue with a name. A line may also be "gap 9" or "end" behind its sign, and "midstream" is none but
// says that the beginning was not captured.
func NamedDialogue(name string, port uint16, lines ...string) Conversation {
	conversation := Conversation{Name: name, Port: port}
	for _, line := range lines {
		if line == "midstream" {
			conversation.MidStream = true
			continue
		}
		step, err := parseStep(line[1:])
		if err != nil {
			step = Client(line[1:])
		}
		if line[0] == '<' {
			step.Dir = protocols.Server
		}
		conversation.Steps = append(conversation.Steps, step)
	}
	return conversation
}

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

	var now, wait int64 // ms since Start; ms that pass before the next step
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := conversation.readLine(line, &wait); err != nil {
			return conversation, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		if last := len(conversation.Steps) - 1; last >= 0 && conversation.Steps[last].At == 0 {
			now += 1 + wait
			wait = 0
			conversation.Steps[last].At = now
		}
	}
	return conversation, nil
}

// readLine reads one line of a transcript, without blanks around it. A "+" line adds to wait.
func (c *Conversation) readLine(line string, wait *int64) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch word {
	// Properties of the connection.
	case "udp":
		c.UDP = true
	case "midstream":
		c.MidStream = true
	case "port":
		port, err := strconv.ParseUint(rest, 10, 16)
		c.Port = uint16(port)
		return err

	// Time and steps.
	case "+":
		milliseconds, err := strconv.ParseInt(rest, 10, 64)
		*wait += milliseconds
		return err
	case ">", "<":
		step, err := parseStep(rest)
		if err != nil {
			return err
		}
		if word == "<" {
			step.Dir = protocols.Server
		}
		c.Steps = append(c.Steps, step)
	default:
		return fmt.Errorf("unknown word %q", word)
	}
	return nil
}

// parseStep parses the action of a step: "end", "gap" with a number, or a quoted string. The step is one of
// the client.
func parseStep(action string) (Step, error) {
	step := Step{Dir: protocols.Client}
	if action == "end" {
		step.End = true
		return step, nil
	}
	if size, ok := strings.CutPrefix(action, "gap "); ok {
		gap, err := strconv.Atoi(size)
		step.Gap = gap
		return step, err
	}
	data, err := strconv.Unquote(action)
	if err != nil {
		return step, fmt.Errorf("unquote: %w", err)
	}
	step.Data = []byte(data)
	return step, nil
}

// Info returns the description with which the connection of c is opened.
func (c *Conversation) Info() protocols.Info {
	port := c.Port
	if port == 0 {
		port = 40404 // of no protocol
	}
	clientPort := c.ClientPort
	if clientPort == 0 {
		clientPort = 50000
	}
	transport := pipeline.Transport_TCP
	if c.UDP {
		transport = pipeline.Transport_UDP
	}
	info := protocols.Info{
		Transport: transport,
		Client:    netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), clientPort),
		Server:    netip.AddrPortFrom(netip.MustParseAddr(cmp.Or(c.ServerIP, "10.0.0.2")), port),
		MidStream: c.MidStream,
	}
	info.Session = pipeline.SessionID(pipeline.ID{}, transport, info.Client, info.Server, 1, Start)
	info.CommunityID = pipeline.CommunityID(transport, info.Client, info.Server)
	if c.Flipped {
		info.Client, info.Server = info.Server, info.Client
	}
	return info
}

// Play plays c to a connection of a new set over list. It returns the events as text and the name of the
// recognised protocol.
func (c Conversation) Play(list []protocols.Protocol) (events []string, name string) {
	return c.PlayOn(protocols.NewSet(list, protocols.Default(), nil))
}

// PlayOn plays c to a connection of set and returns the same as Play.
func (c Conversation) PlayOn(set *protocols.Set) (events []string, name string) {
	name = c.play(set, func(event *pipeline.Event) {
		events = append(events, Text(event))
		event.ReturnToVTPool()
	})
	return events, name
}

// Events plays c to a connection of a new set over list and returns its events.
func (c Conversation) Events(list []protocols.Protocol) (events []*pipeline.Event) {
	set := protocols.NewSet(list, protocols.Default(), nil)
	c.play(set, func(event *pipeline.Event) { events = append(events, event) })
	return events
}

// Emit plays c to a connection of set and passes its events to emit, which owns them.
func (c Conversation) Emit(set *protocols.Set, emit func(*pipeline.Event)) { c.play(set, emit) }

// play plays c to a connection of set and returns the name of the recognised protocol.
func (c Conversation) play(set *protocols.Set, emit func(*pipeline.Event)) (name string) {
	conn := set.Open(c.Info(), emit)
	at := Start
	var buffer []byte
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
			// The parser receives a copy that is overwritten afterwards, which changes the text of an event
			// that still points into it.
			buffer = append(buffer[:0], step.Data...)
			if c.UDP {
				conn.Datagram(dir, buffer, at)
			} else {
				conn.Data(dir, buffer, at)
			}
			for i := range buffer {
				buffer[i] = 0xee
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
		field := &pipeline.Fields[i]
		if !field.Has(event) {
			continue
		}
		switch field.Name {
		case "network.community_id", "network.transport",
			"source.ip", "destination.ip", "source.port", "destination.port":
			if event.Dataset != pipeline.Dataset_DATASET_NONE {
				continue // the same for all events of a conversation
			}
		}
		if out.Len() > 0 {
			out.WriteByte(' ')
		}
		out.WriteString(field.Name + "=" + valueText(field, event))
	}
	return out.String()
}

// valueText returns the value of a field of event. Times count from Start.
func valueText(field *pipeline.Field, event *pipeline.Event) string {
	switch {
	case field.Str != nil:
		return strconv.Quote(field.Str(event))
	case field.Num != nil:
		return strconv.FormatInt(field.Num(event), 10)
	case field.Flag != nil:
		return strconv.FormatBool(field.Flag(event))
	case field.Time != nil:
		return strconv.FormatInt((field.Time(event)-Start)/1_000_000, 10) + "ms"
	case field.IP != nil:
		return field.IP(event).String()
	case field.Raw != nil:
		return field.Text(event)
	case field.Strs != nil:
		return fmt.Sprintf("%q", field.Strs(event, nil))
	case field.Nums != nil:
		return fmt.Sprint(field.Nums(event, nil))
	default:
		return fmt.Sprint(field.Labels(event))
	}
}
