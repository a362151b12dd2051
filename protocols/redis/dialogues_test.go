package redis

import (
	"strconv"
	"strings"
	"testing"

	"tidegate/protocols/protocoltest"
)

// TestDialoguesMatchTheirGoldens: every form of command and reply, and what changes how they are paired, with all fields of
// their events.
func TestDialoguesMatchTheirGoldens(t *testing.T) {
	const (
		ok   = "<+OK\r\n"
		line = "+1339518083.107412 [0 127.0.0.1:60866] \"keys\" \"*\"\r\n"
	)
	message := func(kind string) string {
		return "3\r\n$" + decimal(len(kind)) + "\r\n" + kind + "\r\n$1\r\nc\r\n$1\r\nx\r\n"
	}
	confirm := func(kind, count string) string {
		return "*3\r\n$" + decimal(len(kind)) + "\r\n" + kind + "\r\n$1\r\nc\r\n:" + count + "\r\n"
	}
	dialogue := func(name string, lines ...string) protocoltest.Conversation {
		return protocoltest.NamedDialogue(name, 6379, append(lines, cmd("GET last"), "<$1\r\nz\r\n")...)
	}
	many := strings.Repeat("word ", 40)
	protocoltest.CheckDialogueGoldens(t, list, []protocoltest.Conversation{
		dialogue("commands", cmd("SET k v"), ok, cmd("get k"), "<$1\r\nv\r\n", cmd("DEL k"), "<:1\r\n", cmd("GET k"), "<$-1\r\n", cmd("INCR s"), "<-ERR value is not an integer or out of range\r\n"),
		dialogue("pipelined", ">"+resp("SET", "a", "1")+resp("GET", "a")+resp("PING"), "<+OK\r\n$1\r\n1\r\n+PONG\r\n"),
		dialogue("in pieces", ">*2\r", ">\n$3\r\nG", ">ET\r\n$1", ">\r\n", ">k\r", ">\n", "<$5", "<\r\nhel", "<lo\r", "<\n"),
		dialogue("transaction", cmd("MULTI"), ok, cmd("SET a 1"), "<+QUEUED\r\n", cmd("EXEC"), "<*1\r\n+OK\r\n", cmd("DISCARD"), "<-ERR DISCARD without MULTI\r\n"),
		dialogue("types of RESP3", cmd("HELLO 3"), "<%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n", cmd("HGETALL h"), "<%1\r\n+a\r\n*2\r\n:1\r\n:2\r\n", cmd("SMEMBERS s"), "<~2\r\n+a\r\n+b\r\n",
			cmd("GET d"), "<,1.5\r\n", cmd("GET b"), "<#t\r\n", cmd("GET n"), "<_\r\n", cmd("GET l"), "<(12345678901234567890123\r\n", cmd("GET v"), "<=7\r\ntxt:abc\r\n", cmd("GET e"), "<!9\r\nERR hello\r\n",
			cmd("GET a"), "<|1\r\n+ttl\r\n:3\r\n+x\r\n"),
		dialogue("streamed types", cmd("GET a"), "<$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n", cmd("KEYS *"), "<*?\r\n:1\r\n*?\r\n.\r\n.\r\n", cmd("HGETALL h"), "<%?\r\n+a\r\n+b\r\n.\r\n"),
		dialogue("malformed replies", cmd("GET a"), "<?what\r\n", cmd("GET b"), "<$x\r\n", cmd("GET c"), "<*1\r\n.\r\n", cmd("GET d"), "<$?\r\n$1\r\n", cmd("GET e"), ok),
		dialogue("malformed commands", ">*x\r\n", cmd("GET a"), "<:1\r\n", ">*1\r\n+GET\r\n", cmd("GET b"), "<:2\r\n", ">*0\r\n*-1\r\n\r\n", cmd("GET c"), "<:3\r\n"),
		dialogue("inline", ">PING\r\n", "<+PONG\r\n", ">set k \"a \\x41\\n\" 'b'\n", ok, ">\r\n  \r\nget k\r\n", "<$3\r\na A\r\n", ">nothing \"\r\n", "<-ERR Protocol error: unbalanced quotes in request\r\n"),
		dialogue("arguments that are cut", cmd("MGET "+many), "<*0\r\n", ">"+resp("SET", "k", strings.Repeat("v", 300)+"end"), ok, ">"+resp("SET", strings.Repeat("k", 300), "v"), ok,
			">*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\n"+strings.Repeat("v", 600), ">"+strings.Repeat("w", 400)+"\r\n", ok),
		dialogue("settings", cmd("CONFIG SET maxmemory 1 dir /root dbfilename x.so requirepass hunter2 "+strings.Repeat("hz 10 ", 12)+"logfile /tmp/x"), ok, cmd("CONFIG GET *"), "<*2\r\n$3\r\ndir\r\n$5\r\n/root\r\n",
			cmd("CONFIG SET "+strings.Repeat("dir / ", 40)), ok),
		dialogue("secrets", cmd("AUTH hunter2"), ok, cmd("AUTH user hunter2"), "<-WRONGPASS invalid username-password pair\r\n", cmd("HELLO 3 AUTH user hunter2 SETNAME x"), ok, cmd("ACL SETUSER bob on >hunter2 ~*"), ok,
			cmd("SET session:token hunter2"), ok),
		dialogue("keys", cmd("EVAL script 2 a b c"), "<:1\r\n", cmd("EVAL script 0 c"), "<:1\r\n", cmd("EVAL script x 1 c"), "<-ERR value\r\n", cmd("XREAD COUNT 2 STREAMS a b 0 0"), "<*-1\r\n", cmd("ZUNION 2 a b"), "<*0\r\n",
			cmd("BITOP AND d a"), "<:1\r\n", cmd("OBJECT ENCODING a"), "<$3\r\nraw\r\n", cmd("JSON.SET doc $ 1"), ok, cmd("FLUSHALL"), ok),
		dialogue("subscription", cmd("SUBSCRIBE c d"), "<"+confirm("subscribe", "1")+confirm("subscribe", "2"), "<*"+message("message"), cmd("PSUBSCRIBE p"), "<"+confirm("psubscribe", "3"),
			"<*4\r\n$8\r\npmessage\r\n$1\r\np\r\n$1\r\nc\r\n$1\r\nx\r\n", cmd("UNSUBSCRIBE"), "<"+confirm("unsubscribe", "1")+confirm("unsubscribe", "0"), "<*"+message("message")),
		dialogue("subscription of RESP3", cmd("SSUBSCRIBE c"), "<>"+confirm("ssubscribe", "1")[1:], "<>"+message("smessage"), "<>2\r\n+invalidate\r\n*1\r\n+k\r\n", cmd("GET a"), "<>"+message("message")+"+x\r\n"),
		dialogue("subscription that is refused", cmd("SUBSCRIBE a b"), "<-NOPERM this user has no permissions\r\n", cmd("GET a"), "<:1\r\n"),
		dialogue("confirmation without a number", cmd("SUBSCRIBE c"), "<*1\r\n$9\r\nsubscribe\r\n", cmd("UNSUBSCRIBE c"), "<*1\r\n$11\r\nunsubscribe\r\n", "<*"+message("message")),
		dialogue("monitor", cmd("MONITOR"), "<+OK\r\n"+line+line, cmd("GET a"), "<"+line+"$1\r\nx\r\n"+line, cmd("RESET"), "<+RESET\r\n", cmd("GET b"), "<"+line),
		dialogue("replies that are off", cmd("CLIENT REPLY OFF"), cmd("SET a 1"), cmd("CLIENT REPLY ON"), ok, cmd("CLIENT REPLY SKIP"), cmd("SET b 1"), cmd("GET b"), "<:1\r\n"),
		dialogue("replication", cmd("REPLCONF listening-port 1"), ok, cmd("PSYNC ? -1"), "<+FULLRESYNC 8371445ee67c4ba9b0ad4cb8d6ff2c1f3b0e9ac1 0\r\n", "<$5\r\nREDIS", cmd("REPLCONF ACK 1"), "<"+resp("SET", "a", "1")),
		dialogue("replication with a snapshot", cmd("SYNC"), "<\n\n", "<$9\r\nREDIS0011", cmd("REPLCONF ACK 1")),
		dialogue("nothing waits", "<:1\r\n", "<+OK\r\n", cmd("GET a"), "<:2\r\n:3\r\n"),
		dialogue("from its middle", "midstream", ">alue\r\n"+resp("GET", "a"), "<alue\r\n$1\r\nx\r\n", cmd("GET b"), "<:1\r\n"),
		dialogue("from its middle, with a reply first", "midstream", "<$3\r\nabc\r\n", cmd("GET b"), "<:1\r\n"),
		protocoltest.NamedDialogue("from its middle, the sides exchanged", 6379, "midstream", ">:1\r\n", "<"+resp("GET", "a"), ">$1\r\nx\r\n"),
		dialogue("a reply is lost", cmd("GET a"), "<gap 9", cmd("GET b"), "<:2\r\n", cmd("GET c"), cmd("GET d"), "<gap 5", "<:3\r\n", "<:4\r\n"),
		dialogue("a part of a value is lost", ">*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9\r\nva", ">gap 5", ">ue\r\n", ok, cmd("GET a"), "<$10\r\nab", "<gap 4", "<cdef\r\n", cmd("GET b"), "<$10\r\nab", "<gap 10", cmd("GET c"), "<:1\r\n"),
		dialogue("a command is lost", cmd("GET a"), "<:1\r\n", ">gap 22", "<:2\r\n", cmd("GET b"), "<:3\r\n", ">gap 22", cmd("GET c"), "<:4\r\n:5\r\n"),
		protocoltest.NamedDialogue("an end within a command", 6379, cmd("GET a"), "<:1\r\n", ">*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9\r\nab", "<end", ">end"),
		protocoltest.NamedDialogue("an end within a reply", 6379, cmd("GET a"), "<$9\r\nab", ">end", "<end"),
	}, 0)
}

func decimal(n int) string { return strconv.Itoa(n) }
