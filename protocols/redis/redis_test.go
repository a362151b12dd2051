package redis

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

var list = []protocols.Protocol{Protocol}

// short returns the fields that most tests compare: command, arguments, reply, partial.
func short(event *pipeline.Event) string {
	command := event.Redis
	text := strings.TrimSpace(command.Command + " " + strings.Join(command.Args, " "))
	switch {
	case command.ReplyType == "":
		text += ", no reply"
	case command.Error != "":
		text += " ! " + command.Error
	case command.Reply != "":
		text += " = " + command.Reply
	case command.ReplyBytes > 0:
		text += fmt.Sprintf(" = %s of %d", command.ReplyType, command.ReplyBytes)
	default:
		text += " = " + command.ReplyType
	}
	if event.Partial {
		text += " partial"
	}
	return text
}

// open opens a connection to the port of Redis. Its events are appended to got in the form of show.
func open(midStream bool, got *[]string, show func(*pipeline.Event) string) *protocols.Conn {
	conversation := protocoltest.Conversation{MidStream: midStream, Port: 6379}
	set := protocols.NewSet(list, protocols.Default(), nil)
	return set.Open(conversation.Info(), func(event *pipeline.Event) { *got = append(*got, show(event)) })
}

// play returns the events of steps. A step begins with > for the client or < for the server. Bytes follow, or
// "gap 9" for a gap of 9 bytes.
func play(midStream bool, show func(*pipeline.Event) string, steps ...string) []string {
	var got []string
	conn := open(midStream, &got, show)
	at := protocoltest.Start
	for _, step := range steps {
		at += 1e6
		dir := protocols.Client
		if step[0] == '<' {
			dir = protocols.Server
		}
		var size int
		if found, _ := fmt.Sscanf(step[1:], "gap %d", &size); found == 1 {
			conn.Gap(dir, size, at)
		} else {
			conn.Data(dir, []byte(step[1:]), at)
		}
	}
	conn.Close(at + 1e6)
	return got
}

// resp returns a command as an array of bulk strings.
func resp(words ...string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&out, "$%d\r\n%s\r\n", len(word), word)
	}
	return out.String()
}

// cmd returns a step of the client: the words of line as a command.
func cmd(line string) string { return ">" + resp(strings.Fields(line)...) }

// same compares events in the form of short.
func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestCommandAndReplyAreOneEvent(t *testing.T) {
	check := func(command, reply, want string) {
		t.Helper()
		same(t, play(false, short, cmd(command), "<"+reply), want)
	}
	check("set k v", "+OK\r\n", "SET k v = OK")
	check("GET k", "$1\r\nv\r\n", "GET k = bulk_string of 1")
	check("GET k", "$-1\r\n", "GET k = null")
	check("INCR k", ":42\r\n", "INCR k = 42")
	check("GET k", "-WRONGTYPE Operation against a key\r\n", "GET k ! WRONGTYPE Operation against a key")
	check("LRANGE l 0 1", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", "LRANGE l 0 1 = array of 18")
	check("EXEC", "*-1\r\n", "EXEC = null")
	check("KEYS *", "*0\r\n", "KEYS * = array of 4")
	check("XREAD STREAMS s 0", "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*0\r\n", "XREAD STREAMS s 0 = array of 36")
	check("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n", "CONFIG GET save = array of 20")
	check("HGETALL h", "%1\r\n+k\r\n:1\r\n", "HGETALL h = map of 12")
	check("GET k", "_\r\n", "GET k = null")
	check("GET k", "#t\r\n", "GET k = t")
	check("GET k", ",1.5\r\n", "GET k = 1.5")
	check("GET k", "(123456789012345678901234567890\r\n", "GET k = 123456789012345678901234567890")
	check("GET k", "!9\r\nERR large\r\n", "GET k ! ERR large")
	check("GET k", "=5\r\ntxt:a\r\n", "GET k = verbatim_string of 5")
	check("SMEMBERS k", "~2\r\n+a\r\n*1\r\n:1\r\n", "SMEMBERS k = set of 16")
	check("GET k", "|1\r\n+ttl\r\n:3600\r\n$1\r\nv\r\n", "GET k = bulk_string of 1")
	check("GET k", "$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n", "GET k = bulk_string of 5")
	check("GET k", "*?\r\n:1\r\n*1\r\n|1\r\n+a\r\n+b\r\n:2\r\n.\r\n", "GET k = array of 31")
}

func TestInlineCommandsAreRead(t *testing.T) {
	same(t, play(false, short, ">PING\r\n", "<+PONG\r\n", ">set k \"a b\\x41\" 'c'\n", "<+OK\r\n"), "PING = PONG", "SET k a bA c = OK")
	same(t, play(false, short, ">\r\n\r\nGET k\r\n"+resp("GET", "j"), "<$-1\r\n:1\r\n"), "GET k = null", "GET j = 1")
}

// TestRepliesOfAPipelineMatchTheirCommands: RESP has no IDs, so replies are paired by order.
func TestRepliesOfAPipelineMatchTheirCommands(t *testing.T) {
	get := func(key string) string { return resp("GET", key) }
	same(t, play(false, short, ">"+get("a")+get("b")+get("c"), "<$1\r\nx\r\n$-1\r\n", "<:7\r\n"), "GET a = bulk_string of 1", "GET b = null", "GET c = 7")
	same(t, play(false, short, ">"+get("a")+get("b"), "<$1\r\nx\r\n"), "GET a = bulk_string of 1", "GET b, no reply")
	same(t, play(false, short, ">"+resp("MULTI")+get("a")+resp("EXEC"), "<+OK\r\n+QUEUED\r\n*1\r\n$1\r\nx\r\n"), "MULTI = OK", "GET a = QUEUED", "EXEC = array of 11")
}

// TestPushedMessageHasNoCommand checks subscriptions of RESP2 and of RESP3, their confirmations and their
// end.
func TestPushedMessageHasNoCommand(t *testing.T) {
	message := "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
	confirm := func(count int) string { return fmt.Sprintf("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:%d\r\n", count) }
	same(t, play(false, short, cmd("SUBSCRIBE a b"), "<"+confirm(1)+message, "<"+confirm(2)+message, cmd("PING"), "<*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
		" = message", "SUBSCRIBE a b = array of 30", " = message", "PING = array of 20")
	same(t, play(false, short, cmd("HELLO 3"), "<%1\r\n+proto\r\n:3\r\n", cmd("SUBSCRIBE a"), "<>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
		cmd("GET k"), "<>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n$1\r\nv\r\n"),
		"HELLO 3 = map of 16", "SUBSCRIBE a = push of 30", " = invalidate", "GET k = bulk_string of 1")
	same(t, play(false, short, cmd("SUBSCRIBE a"), "<"+confirm(1), cmd("UNSUBSCRIBE"), "<*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n", cmd("LRANGE l 0 -1"), "<"+message),
		"SUBSCRIBE a = array of 30", "UNSUBSCRIBE = array of 33", "LRANGE l 0 -1 = array of 32")
	same(t, play(false, short, cmd("SUBSCRIBE a b"), "<-NOAUTH Authentication required.\r\n", cmd("PING"), "<+PONG\r\n"), "SUBSCRIBE a b ! NOAUTH Authentication required.", "PING = PONG")
}

func TestClientReplyOffAndSkipExpectNoReply(t *testing.T) {
	same(t, play(false, short, cmd("CLIENT REPLY OFF"), cmd("SET a 1"), cmd("CLIENT REPLY SKIP"), cmd("SET b 1"), cmd("CLIENT REPLY ON"), "<+OK\r\n", cmd("GET a"), "<:1\r\n"),
		"CLIENT REPLY OFF, no reply", "SET a 1, no reply", "CLIENT REPLY SKIP, no reply", "SET b 1, no reply", "CLIENT REPLY ON = OK", "GET a = 1")
	same(t, play(false, short, cmd("CLIENT REPLY SKIP"), cmd("SET a 1"), cmd("GET a"), "<:1\r\n"), "CLIENT REPLY SKIP, no reply", "SET a 1, no reply", "GET a = 1")
}

func TestClientIsReadOnBesideAStream(t *testing.T) {
	same(t, play(false, short, cmd("MONITOR"), "<+OK\r\n", "<+1700000000.1 [0 127.0.0.1:1] \"GET\" \"a\"\r\n"), "MONITOR = OK")
	same(t, play(false, short, cmd("PSYNC ? -1"), "<+FULLRESYNC 8de1787ba490483314a4d30f1c628bc5025eb761 0\r\n", "<$9999\r\nREDIS", cmd("REPLCONF ACK 0")),
		"PSYNC ? -1 = FULLRESYNC 8de1787ba490483314a4d30f1c628bc5025eb761 0", "REPLCONF ACK 0, no reply")
	same(t, play(false, short, cmd("MONITOR"), "<-NOPERM no\r\n", cmd("PING"), "<+PONG\r\n"), "MONITOR ! NOPERM no", "PING = PONG")
}

func TestSecretsAreRedacted(t *testing.T) {
	check := func(line, want string) {
		t.Helper()
		same(t, play(false, short, cmd(line), "<+OK\r\n"), want+" = OK")
		same(t, play(false, short, ">"+line+"\r\n", "<+OK\r\n", cmd("PING"), "<+PONG\r\n"), want+" = OK", "PING = PONG")
	}
	check("AUTH pw", "AUTH REDACTED")
	check("auth user pw", "AUTH user REDACTED")
	check("HELLO 3 AUTH user pw SETNAME x", "HELLO 3 AUTH user REDACTED SETNAME x")
	check("ACL SETUSER bob on >pw #abc ~* +@all", "ACL SETUSER bob on >REDACTED #REDACTED ~* +@all")
	check("CONFIG SET requirepass pw", "CONFIG SET requirepass REDACTED")
	check("config set maxmemory 1 MasterAuth pw", "CONFIG SET maxmemory 1 MasterAuth REDACTED")
	check("MIGRATE h 6379 k 0 10 COPY AUTH pw", "MIGRATE h 6379 k 0 10 COPY AUTH REDACTED")
	check("MIGRATE h 6379 k 0 10 AUTH2 u pw KEYS", "MIGRATE h 6379 k 0 10 AUTH2 u REDACTED KEYS")
	check("SENTINEL SET mymaster auth-pass pw", "SENTINEL SET mymaster auth-pass REDACTED")
	same(t, play(false, short, cmd("AUHT pw"), "<-ERR unknown command 'AUHT', with args beginning with: 'pw' \r\n"), "AUHT pw ! ERR unknown command 'AUHT', with args beginning with: REDACTED")
}

// TestKeyIsThatOfTheCommand checks commands and subcommands with keys at several positions.
func TestKeyIsThatOfTheCommand(t *testing.T) {
	check := func(line, command, key string) {
		t.Helper()
		show := func(event *pipeline.Event) string { return event.Redis.Command + "|" + event.Redis.Key }
		same(t, play(false, show, cmd(line)), command+"|"+key)
	}
	check("GET a b", "GET", "a")
	check("PING a", "PING", "")
	check("CONFIG SET save x", "CONFIG SET", "")
	check("CLIENT LIST", "CLIENT LIST", "")
	check("COMMAND", "COMMAND", "")
	check("OBJECT ENCODING k", "OBJECT ENCODING", "k")
	check("XINFO STREAM s FULL", "XINFO STREAM", "s")
	check("XGROUP CREATE s g 0", "XGROUP CREATE", "s")
	check("BITOP AND dest a b", "BITOP", "dest")
	check("EVAL script 2 a b c", "EVAL", "a")
	check("EVAL script 0 a", "EVAL", "")
	check("XREADGROUP GROUP g c COUNT 1 STREAMS s1 s2 > >", "XREADGROUP", "s1")
	check("ZUNION 2 a b", "ZUNION", "a")
	check("BLMPOP 1 2 a b LEFT", "BLMPOP", "a")
	check("MIGRATE h 6379 k 0 10", "MIGRATE", "k")
	check("JSON.SET doc $ 1", "JSON.SET", "doc")
	check("NOSUCH a", "NOSUCH", "")
}

func TestArgumentsAreCapped(t *testing.T) {
	words := []string{"MSET"}
	for i := range 40 {
		words = append(words, fmt.Sprintf("%d-%s", i, strings.Repeat("x", 1000)))
	}
	var event *pipeline.Event
	play(false, func(emitted *pipeline.Event) string { event = emitted; return "" }, ">"+resp(words...), "<+OK\r\n")
	command := event.Redis
	args, first := command.Args, command.Args[0]
	if len(args) != maxArgs || len(first) != maxArg+len("…") || !strings.HasPrefix(args[maxArgs-1], "39-") || len(command.Key) != maxKey ||
		command.ArgsCount != 40 || command.ArgsBytes != 40*1000+10*2+30*3 {
		t.Errorf("%d args of %d bytes, %d in all with %d bytes, key of %d",
			len(args), len(first), command.ArgsCount, command.ArgsBytes, len(command.Key))
	}
	if event.Source.Bytes != uint64(len(resp(words...))) || event.Destination.Bytes != 5 {
		t.Errorf("bytes %d and %d", event.Source.Bytes, event.Destination.Bytes)
	}
}

// TestHugeValuesAreNotBuffered: a value may exceed the bytes that a direction may keep.
func TestHugeValuesAreNotBuffered(t *testing.T) {
	var got []string
	conn := open(false, &got, short)
	const size = 64 << 20
	piece := []byte(strings.Repeat("x", 1<<16))
	feed := func(dir protocols.Dir, head string) {
		conn.Data(dir, []byte(head), 1)
		for range size / len(piece) {
			conn.Data(dir, piece, 2)
		}
		conn.Data(dir, []byte("\r\n"), 3)
	}
	feed(protocols.Client, fmt.Sprintf("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n", size))
	conn.Data(protocols.Server, []byte("+OK\r\n"), 4)
	conn.Data(protocols.Client, []byte(resp("GET", "k")), 5)
	feed(protocols.Server, fmt.Sprintf("$%d\r\n", size))
	conn.Close(6)
	same(t, got, "SET k "+strings.Repeat("x", maxArg-argTail)+"…"+strings.Repeat("x", argTail)+" = OK", fmt.Sprintf("GET k = bulk_string of %d", size))
}

func TestGapCostsTheAffectedCommandsOnly(t *testing.T) {
	// A gap in a value.
	same(t, play(false, short, ">*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\nab", ">gap 5", ">hij\r\n", "<+OK\r\n", cmd("GET k"), "<$10\r\nab", "<gap 5", "<hij\r\n"),
		"SET k ab = OK partial", "GET k = bulk_string of 10 partial")
	same(t, play(false, short, ">*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\nab", ">gap 10", "<+OK\r\n", cmd("PING"), "<+PONG\r\n"), "SET k ab = OK partial", "PING = PONG")

	// A whole command is lost: its reply is an event without a command.
	same(t, play(false, short, cmd("GET a"), "<:1\r\n", ">gap 22", "<:2\r\n", cmd("GET c"), "<:3\r\n"), "GET a = 1", " = 2 partial", "GET c = 3 partial")

	// A whole reply is lost: the next command of the client shows that it has received the reply.
	same(t, play(false, short, cmd("GET a"), "<gap 4", cmd("GET b"), "<:2\r\n"), "GET a, no reply partial", "GET b = 2")

	// A gap in an array: its elements are not read as replies.
	same(t, play(false, short, cmd("LRANGE l 0 -1"), "<*3\r\n$1\r\na\r\n", "<gap 7", "<$1\r\nc\r\n", cmd("GET b"), "<:2\r\n"), "LRANGE l 0 -1, no reply partial", "GET b = 2")
}

// TestNonsenseBeforeManyBytesTakesItsReplies: what the client sends first is nonsense, and more than what a detection
// examines comes before the first reply. Each line of nonsense gets a reply, so it is an event, and the commands behind
// it have their own replies.
func TestNonsenseBeforeManyBytesTakesItsReplies(t *testing.T) {
	const wrong = "-ERR unknown command 'nonsense'\r\n"
	value := strings.Repeat("v", 6000)
	for _, count := range []int{1, 20, 150} {
		sent := strings.Repeat("nonsense a b\r\n", count) + resp("MULTI") + resp("SET", "k", value)
		var want []string
		for range count {
			want = append(want, "NONSENSE a b ! ERR unknown command 'nonsense'")
		}
		cut := value[:maxArg-argTail] + "…" + value[:argTail]
		want = append(want, "MULTI = OK", "SET k "+cut+" = QUEUED", "EXEC = array of 9", "QUIT = OK")
		answers := []string{"<" + strings.Repeat(wrong, count), "<+OK\r\n+QUEUED\r\n", cmd("EXEC"), "<*1\r\n+OK\r\n", cmd("QUIT"), "<+OK\r\n"}
		same(t, play(false, short, append([]string{">" + sent}, answers...)...), want...)
		var steps []string
		for at := range len(sent) {
			steps = append(steps, ">"+sent[at:at+1])
		}
		same(t, play(false, short, append(steps, answers...)...), want...)
	}
}

// TestAnswersBeyondThoseThatDecideArePaired: the server's first answer does not decide on the protocol, and the next
// ones, more than what is held for that, come together.
func TestAnswersBeyondThoseThatDecideArePaired(t *testing.T) {
	const wrong = "-ERR unknown command 'NOPE', with args beginning with: \r\n"
	steps := []string{">" + resp("NOPE"), "<" + wrong}
	var want []string
	const count = 300
	steps = append(steps, ">"+strings.Repeat(resp("NOPE"), count)+resp("MULTI")+resp("QUIT"), "<"+strings.Repeat(wrong, count)+"+OK\r\n+OK\r\n")
	for range count + 1 {
		want = append(want, "NOPE ! ERR unknown command 'NOPE', with args beginning with:")
	}
	want = append(want, "MULTI = OK", "QUIT = OK")
	got := play(false, short, steps...)
	for i := range got {
		got[i] = strings.TrimSpace(strings.TrimSuffix(got[i], "REDACTED"))
	}
	same(t, got, want...)

	// The server's answers come in front of what the client sends next.
	steps = []string{">" + strings.Repeat(resp("NOPE"), count) + resp("MULTI"), "<" + wrong, "<" + strings.Repeat(wrong, count-1) + "+OK\r\n"}
	if got := play(false, short, steps...); len(got) != count+1 || got[count] != "MULTI = OK" {
		t.Errorf("%d events, the last %q", len(got), got[len(got)-1])
	}
}

// TestInlineCommandsBehindAGapAreFound: the rest of a line that was cut is skipped, and so is a text whose lines are no
// commands.
func TestInlineCommandsBehindAGapAreFound(t *testing.T) {
	front := cmd("GET a")
	check := func(sent []string, want ...string) {
		t.Helper()
		same(t, play(false, short, slices.Concat([]string{front, "<:1\r\n", ">gap 9"}, sent)...), append([]string{"GET a = 1"}, want...)...)
	}
	check([]string{">FLUSHALL\r\n", "<+OK\r\n"}, "FLUSHALL = OK partial")
	check([]string{">FLUSHALL\nxx garbage\n", "<+OK\r\n-ERR x\r\n"}, "FLUSHALL = OK partial", "XX garbage ! ERR x partial")
	check([]string{">of a line\r\nset a b\r\n", "<+OK\r\n"}, "SET a b = OK partial")
	check([]string{">of a line\r\n \"SE\\x54\"\ta b\n", "<+OK\r\n"}, "SET a b = OK partial")
	check([]string{">of a line", ">\r\nse", ">t a b\r\n", "<+OK\r\n"}, "SET a b = OK partial")
	check([]string{">of a line\r\nset a b\r\n" + resp("PING"), "<+OK\r\n", "<+PONG\r\n"}, "SET a b = OK partial", "PING = PONG partial")
	check([]string{">x\r\nset a b\r\nget c\r\n", "<+OK\r\n", "<:1\r\n"}, "SET a b = OK partial", "GET c = 1 partial")
	long := strings.Repeat("v", 9000)
	check([]string{">x\r\nset a ", ">" + long[:4500], ">" + long[4500:], ">\r\n", "<+OK\r\n"},
		"SET a "+long[:maxArg-argTail]+"…"+long[:argTail]+" = OK partial")

	// A text within a value, whose lines begin with words that are names of commands too.
	text := "lines\r\nget this and that,\r\nand so on,\r\nsort of.\r\n\x00\x01\r\nThe end\r\n"
	check([]string{">" + text + resp("PING"), "<+OK\r\n", "<+PONG\r\n"}, "PING = OK partial", " = PONG partial")

	// A connection that is older than the capture.
	same(t, play(true, short, ">set a b\r\n", "<+OK\r\n", ">get a\r\n", "<$1\r\nb\r\n"), "SET a b = OK", "GET a = bulk_string of 1")
}

func TestMidStreamAndFlippedRolesAreRead(t *testing.T) {
	same(t, play(true, short, ">lue\r\n"+resp("GET", "a"), "<:1\r\n"), "GET a = 1 partial")
	same(t, play(true, short, "<rest\r\n:5\r\n", cmd("GET b"), "<:2\r\n"), "GET b = 2")
	flip := strings.NewReplacer(">", "<", "<", ">")
	same(t, play(true, short, flip.Replace(cmd("GET a")), ">:1\r\n", flip.Replace(cmd("GET b")), ">$-1\r\n"), "GET a = 1", "GET b = null")
	same(t, play(true, short, ">:5\r\n", flip.Replace(cmd("GET b")), ">$-1\r\n"), " = 5 partial", "GET b = null")
}

func TestStateWithoutRepliesIsBounded(t *testing.T) {
	var got []string
	conn := open(false, &got, short)
	command := []byte(resp("SET", "k", strings.Repeat("v", 100)))
	for range 3 * maxWaiting {
		conn.Data(protocols.Client, command, 1)
	}
	if len(got) != 2*maxWaiting {
		t.Errorf("%d events before the end, want %d", len(got), 2*maxWaiting)
	}
	conn.Data(protocols.Server, []byte(strings.Repeat("+OK\r\n", 2*maxWaiting)+":7\r\n"), 2)
	if events := len(got); events != 2*maxWaiting+1 || !strings.HasSuffix(got[events-1], "= 7") {
		t.Errorf("%d events, the last %q", events, got[events-1])
	}
	conn.Close(3)
	if len(got) != 3*maxWaiting {
		t.Errorf("%d events in all, want %d", len(got), 3*maxWaiting)
	}
}

func TestDetectIsStrict(t *testing.T) {
	check := func(dir protocols.Dir, data string, want protocols.Match) {
		t.Helper()
		if got := detect(dir, []byte(data)); got != want {
			t.Errorf("%q is %d, want %d", data, got, want)
		}
	}
	const client, server = protocols.Client, protocols.Server
	check(client, "*", protocols.More)
	check(client, "*1\r\n$4\r\nPI", protocols.More)
	check(client, resp("PING"), protocols.Yes)
	check(client, "*1\r\n$4\r\n\x00\x01", protocols.No)
	check(client, "*a\r\n", protocols.No)
	check(client, "PING\r\n", protocols.More)
	check(client, "EHLO x\r\n", protocols.No)
	check(client, "USER x\r\n", protocols.No)
	check(client, "GET / HTTP/1.1\r\n", protocols.No)
	check(client, "a1 LOGIN x y\r\n", protocols.No)
	check(server, "+PONG\r\n", protocols.Yes)
	check(server, "+OK\r\n", protocols.More)
	check(server, "+OK\r\n:1\r\n", protocols.Yes)
	check(server, "+OK POP3 ready\r\n", protocols.No)
	check(server, "* OK IMAP4rev1\r\n", protocols.No)
	check(server, "220 mail\r\n", protocols.No)
	check(server, ":irc.example 001 x\r\n", protocols.No)
	check(server, "VALUE k 0 1\r\n", protocols.No)
	check(server, "-NOAUTH Authentication required.\r\n", protocols.Yes)
}

// FuzzParse checks the properties of every parser with arbitrary bytes.
func FuzzParse(f *testing.F) {
	f.Add([]byte(resp("SET", "k", "v")+resp("SUBSCRIBE", "a", "b")), []byte("+OK\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"), uint8(3), uint8(0))
	f.Add([]byte("PING\r\nset k \"a\\x41\"\r\n"), []byte("+PONG\r\n|1\r\n+a\r\n:1\r\n%1\r\n+k\r\n~1\r\n_\r\n"), uint8(0), uint8(1))
	f.Add([]byte(resp("CLIENT", "REPLY", "SKIP")+resp("HELLO", "3", "AUTH", "u", "p")), []byte("*?\r\n:1\r\n.\r\n$?\r\n;1\r\na\r\n;0\r\n>1\r\n+x\r\n"), uint8(7), uint8(9))
	f.Fuzz(protocoltest.Fuzz(list))
}

// TestTranscriptsMatchTheirGoldens compares every field of the events of each transcript with its golden.
func TestTranscriptsMatchTheirGoldens(t *testing.T) { protocoltest.CheckGoldens(t, list, "redis") }

// TestTranscriptsHoldTheirProperties: cuts change nothing, and what is not partial is true, whatever was lost.
func TestTranscriptsHoldTheirProperties(t *testing.T) {
	protocoltest.CheckTranscripts(t, list, "../testdata", "redis")
}

// TestInlineCommandCutByAGapIsToldUpToIt: the words before the gap are those of a partial event, if the name is whole.
// The rest of an array is told by the array itself, and a server sends no commands.
func TestInlineCommandCutByAGapIsToldUpToIt(t *testing.T) {
	cut := func(sent string, want ...string) {
		t.Helper()
		same(t, play(false, short, cmd("GET a"), "<:1\r\n", ">"+sent, ">gap 9", ">\r\n", "<+OK\r\n", cmd("GET b"), "<:2\r\n"),
			append([]string{"GET a = 1"}, want...)...)
	}
	cut("set k val", "SET k val = OK partial", "GET b = 2 partial")
	cut("flushall ", "FLUSHALL = OK partial", "GET b = 2 partial")
	cut("flushal", " = OK partial", "GET b = 2 partial") // the name may be cut
	cut("hello there", "HELLO there = OK partial", "GET b = 2 partial")
	cut("set \x00\x01 x", " = OK partial", "GET b = 2 partial")
	cut("*1\r\n$4\r\nPI", " = OK partial", "GET b = 2 partial")
}

// TestRepliesOfAPipelineBehindAGapAreUncertain: which of several replies were lost is not known, so none of those that
// come later is certain. With one command that waits, it is.
func TestRepliesOfAPipelineBehindAGapAreUncertain(t *testing.T) {
	pipeline := ">" + resp("GET", "a") + resp("GET", "b") + resp("GET", "c")
	same(t, play(false, short, pipeline, "<:1\r\n", "<gap 4", cmd("GET d"), "<:3\r\n", "<:4\r\n"),
		"GET a = 1", "GET b, no reply partial", "GET c, no reply partial", "GET d = 3 partial", " = 4 partial")
	same(t, play(false, short, ">"+resp("GET", "a"), "<gap 4", cmd("GET d"), "<:4\r\n"), "GET a, no reply partial", "GET d = 4")
}

// TestBrokenHeadOfAnArrayDoesNotStall: the bytes of a head that no server accepts are skipped, and the next command is
// read as soon as it comes.
func TestBrokenHeadOfAnArrayDoesNotStall(t *testing.T) {
	for _, head := range []string{"*x\r\n", "*1a\r\n", "*99999999999\r\n", "*--1\r\n", "*\r\n"} {
		var got []string
		conn := open(false, &got, short)
		for i, step := range []string{">" + resp("PING"), "<+PONG\r\n", ">" + head, ">" + resp("GET", "b"), "<:2\r\n"} {
			dir := protocols.Client
			if step[0] == '<' {
				dir = protocols.Server
			}
			conn.Data(dir, []byte(step[1:]), protocoltest.Start+int64(i))
		}
		if want := []string{"PING = PONG", "GET b = 2 partial"}; !slices.Equal(got, want) {
			t.Errorf("%q: %q before the end of the connection, want %q", head, got, want)
		}
		conn.Close(protocoltest.Start + 9)
	}
}

// TestCommandThatWaitsWhenAPipelineShowsIsUncertain: GET b and GET c were lost. Their replies are paired with later
// commands, and GET e is one of them, though it was sent alone.
func TestCommandThatWaitsWhenAPipelineShowsIsUncertain(t *testing.T) {
	same(t, play(false, short, cmd("GET a"), "<+1\r\n", ">gap 42", cmd("GET d"), "<+2\r\n", cmd("GET e"), cmd("GET f"), "<+3\r\n+4\r\n+5\r\n"),
		"GET a = 1", "GET d = 2 partial", "GET e = 3 partial", "GET f = 4 partial", " = 5 partial")
}

// TestRequestsThatAreSkippedAreLostToo: a reply for which no command waits ends the uncertainty only if the
// commands behind it were read.
func TestRequestsThatAreSkippedAreLostToo(t *testing.T) {
	same(t, play(false, short, cmd("GET a"), "<+1\r\n", ">gap 5", ">\x01\x02", "<+2\r\n", ">\x01\x02\r\n", cmd("GET d"), cmd("GET e"),
		"<+3\r\n+4\r\n+5\r\n"),
		"GET a = 1", " = 2 partial", "GET d = 3 partial", "GET e = 4 partial", " = 5 partial")
}

// TestLinesOfALostMonitorAreNoReplies: MONITOR was lost, and the lines that it yields come between the replies.
func TestLinesOfALostMonitorAreNoReplies(t *testing.T) {
	const line = "+1339518083.107412 [0 127.0.0.1:60866] \"keys\" \"*\"\r\n"
	same(t, play(false, short, cmd("GET a"), "<+1\r\n", ">gap 17", "<+OK\r\n"+line, cmd("GET b"), "<"+line+"+2\r\n"+line, cmd("GET c"), "<+3\r\n"),
		"GET a = 1", " = OK partial", "GET b = 2 partial", "GET c = 3")
	same(t, play(false, short, cmd("GET a"), "<"+line, "<+2\r\n"), "GET a = 1339518083.107412 [0 127.0.0.1:60866] \"keys\" \"*\"", " = 2 partial")
}
