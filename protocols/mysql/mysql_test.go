package mysql

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

var list = []protocols.Protocol{Protocol}

var fromClient, fromServer = protocoltest.Client, protocoltest.Server

// play returns the events of steps on the port of the protocol.
func play(steps []protocoltest.Step) []*pipeline.Event {
	return protocoltest.Conversation{Port: 3306, Steps: steps}.Events(list)
}

// pkt returns a packet with its header: length and sequence number.
func pkt(sequence byte, payload string) string {
	size := len(payload)
	return string([]byte{byte(size), byte(size >> 8), byte(size >> 16), sequence}) + payload
}

// line returns an event in short: the command and the fields that are set.
func line(event *pipeline.Event) string {
	command := event.Mysql
	text := command.Command
	add := func(set bool, format string, values ...any) {
		if set {
			text += fmt.Sprintf(" "+format, values...)
		}
	}
	add(command.Query != "", "[%s]", command.Query)
	add(command.StatementId > 0, "#%d", command.StatementId)
	add(command.UserName != "" && command.Command == "COM_CONNECT", "user=%s", command.UserName)
	add(command.ServerVersion != "", "server=%s", command.ServerVersion)
	add(command.Database != "", "db=%s", command.Database)
	add(command.Columns > 0, "columns=%d", command.Columns)
	add(command.Rows > 0, "rows=%d", command.Rows)
	add(command.AffectedRows > 0, "affected=%d", command.AffectedRows)
	add(command.InsertId > 0, "insert=%d", command.InsertId)
	add(command.Warnings > 0, "warnings=%d", command.Warnings)
	add(command.ErrorCode > 0, "error=%d/%s/%s", command.ErrorCode, command.SqlState, command.ErrorMessage)
	add(event.Outcome == pipeline.Outcome_SUCCESS, "ok")
	add(event.Outcome == pipeline.Outcome_FAILURE, "failed")
	add(event.Partial, "partial")
	return text
}

// lines returns each event in the form of line.
func lines(events []*pipeline.Event) []string {
	var out []string
	for _, event := range events {
		out = append(out, line(event))
	}
	return out
}

// check plays steps whole and in every split and compares the events.
func check(t *testing.T, steps []protocoltest.Step, want ...string) []*pipeline.Event {
	t.Helper()
	conversation := protocoltest.Conversation{Port: 3306, Steps: steps}
	protocoltest.CheckSplits(t, list, conversation)
	events := conversation.Events(list)
	if got := lines(events); !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	return events
}

func le32(value uint32) string { return string(binary.LittleEndian.AppendUint32(nil, value)) }

// modern holds the capabilities of a client of MySQL 8.
const modern = clientProtocol41 | clientSecure | 1<<19 | clientAuthLenEnc | clientConnectWithDB | clientDeprecateEOF | clientSessionTrack

// greeting returns the first packet of a server with the given capabilities.
func greeting(version string, capabilities uint32) string {
	return pkt(0, "\x0a"+version+"\x00"+"\x01\x00\x00\x00"+"12345678\x00"+le32(capabilities)[:2]+"\x21"+"\x02\x00"+le32(capabilities)[2:]+"\x15"+
		strings.Repeat("\x00", 10)+"123456789012\x00"+"caching_sha2_password\x00")
}

// loginPacket returns the login of a client. db is sent only if the capabilities allow it.
func loginPacket(caps uint32, user, db string) string {
	text := le32(caps) + le32(1<<24) + "\x2d" + strings.Repeat("\x00", 23) + user + "\x00" + "\x20" + strings.Repeat("p", 32)
	if caps&clientConnectWithDB != 0 {
		text += db + "\x00"
	}
	return pkt(1, text+"caching_sha2_password\x00")
}

// okReply returns an OK packet. head is 0, or 0xfe where the packet replaces an EOF packet.
func okReply(seq byte, head byte, affected, insert byte, status uint16, warnings byte) string {
	return pkt(seq, string([]byte{head, affected, insert, byte(status), byte(status >> 8), warnings, 0}))
}

// eofReply returns an EOF packet.
func eofReply(seq byte, status uint16) string {
	return pkt(seq, string([]byte{0xfe, 0, 0, byte(status), byte(status >> 8)}))
}

// errorReply returns an ERR packet.
func errorReply(seq byte, code uint16, state, text string) string {
	return pkt(seq, string([]byte{0xff, byte(code), byte(code >> 8)})+"#"+state+text)
}

// column is the payload of a column definition.
const column = "\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00"

// query returns a COM_QUERY packet.
func query(sql string) string { return pkt(0, "\x03"+sql) }

// session returns the steps of a login with the given capabilities, followed by more.
func session(caps uint32, more ...protocoltest.Step) []protocoltest.Step {
	return append([]protocoltest.Step{
		fromServer(greeting("8.0.36", caps)), fromClient(loginPacket(caps, "shop", "orders")), fromServer(okReply(2, 0, 0, 0, 2, 0)),
	}, more...)
}

const loggedIn = "COM_CONNECT user=shop server=8.0.36 db=orders ok"

// TestLoginIsOneEvent checks several methods of authentication, a refusal and logins that end early.
func TestLoginIsOneEvent(t *testing.T) {
	check(t, session(modern), loggedIn)
	check(t, []protocoltest.Step{ // caching_sha2_password, not in its cache: public key, full
		fromServer(greeting("8.0.36", modern)), fromClient(loginPacket(modern, "shop", "")),
		fromServer(pkt(2, "\x01\x04")), fromClient(pkt(3, "\x02")), fromServer(pkt(4, "\x01-----BEGIN PUBLIC KEY-----")),
		fromClient(pkt(5, strings.Repeat("\xaa", 256))), fromServer(okReply(6, 0, 0, 0, 2, 0)), fromClient(query("SELECT 1")),
	}, "COM_CONNECT user=shop server=8.0.36 ok", "COM_QUERY [SELECT 1]")
	check(t, []protocoltest.Step{ // change of the method, then a refusal
		fromServer(greeting("5.7.1", modern)), fromClient(loginPacket(modern, "root", "")),
		fromServer(pkt(2, "\xfemysql_native_password\x0012345678901234567890\x00")), fromClient(pkt(3, strings.Repeat("h", 20))),
		fromServer(errorReply(4, 1045, "28000", "Access denied for user 'root'")),
	}, "COM_CONNECT user=root server=5.7.1 error=1045/28000/Access denied for user 'root' failed")
	check(t, []protocoltest.Step{fromServer(pkt(0, "\xff\x69\x04Host is blocked"))}, "COM_CONNECT error=1129//Host is blocked failed")
	check(t, []protocoltest.Step{fromServer(greeting("8.0.36", modern))})
	check(t, []protocoltest.Step{fromServer(greeting("8.0.36", modern)), fromClient(loginPacket(modern, "shop", "orders"))},
		"COM_CONNECT user=shop server=8.0.36 db=orders")
}

// TestBytesBehindTheTLSRequestArePassedToTLS: the TLS parser receives both directions, from the byte behind
// the request.
func TestBytesBehindTheTLSRequestArePassedToTLS(t *testing.T) {
	var got [2]string
	fake := protocols.Protocol{
		Name: "tls", TCP: true,
		Detect: func(protocols.Dir, []byte) protocols.Match { return protocols.No },
		Sync:   func(protocols.Dir, []byte) (int, protocols.Match) { return 0, protocols.No },
		New:    func() protocols.Parser { return &recordingParser{got: &got} },
	}
	steps := []protocoltest.Step{
		fromServer(greeting("8.0.36", modern|clientSSL)),
		fromClient(pkt(1, le32(modern|clientSSL)+le32(1<<24)+"\x2d"+strings.Repeat("\x00", 23)) + "client hello"),
		fromServer("server hello"),
	}
	events := protocoltest.Conversation{Port: 3306, Steps: steps}.Events([]protocols.Protocol{Protocol, fake})
	if got := lines(events); !slices.Equal(got, []string{"COM_CONNECT server=8.0.36"}) {
		t.Errorf("%q", got)
	}
	if got != [2]string{"client hello", "server hello"} {
		t.Errorf("handed over: %q", got)
	}
}

// A recordingParser keeps the bytes of each direction.
type recordingParser struct{ got *[2]string }

func (p *recordingParser) Reset(*protocols.Conn) {}
func (p *recordingParser) Parse(dir protocols.Dir, data []byte, _ int64) (int, error) {
	p.got[dir] += string(data)
	return len(data), nil
}
func (p *recordingParser) Gap(protocols.Dir, int) bool { return true }
func (p *recordingParser) End(protocols.Dir, int64)    {}
func (p *recordingParser) Close(int64)                 {}

// TestCompressedConnectionIsReadUpToTheLogin: the packets behind the login are compressed, which an event says.
func TestCompressedConnectionIsReadUpToTheLogin(t *testing.T) {
	check(t, session(modern|clientCompress, fromClient(query("SELECT 1"))), loggedIn, " partial")
}

// TestRowsAreCounted checks result sets with the EOF packets of older servers and without them.
func TestRowsAreCounted(t *testing.T) {
	ask := fromClient(query("SELECT a FROM t"))
	want := "COM_QUERY [SELECT a FROM t] db=orders columns=1 rows=3 warnings=1 ok"
	row := func(seq byte) string { return pkt(seq, "\x01x") }
	check(t, session(modern, ask, fromServer(pkt(1, "\x01")+pkt(2, column)+row(3)+row(4)+row(5)+okReply(6, 0xfe, 0, 0, 2, 1))), loggedIn, want)
	check(t, session(modern&^clientDeprecateEOF, ask,
		fromServer(pkt(1, "\x01")+pkt(2, column)+eofReply(3, 2)+row(4)+row(5)+row(6)+pkt(7, "\xfe\x01\x00\x02\x00"))), loggedIn, want)
	check(t, session(modern, ask, fromServer(pkt(1, "\x01")+pkt(2, column)+row(3)+errorReply(4, 1317, "70100", "Query execution was interrupted"))),
		loggedIn, "COM_QUERY [SELECT a FROM t] db=orders columns=1 rows=1 error=1317/70100/Query execution was interrupted failed")
	check(t, session(modern, ask, fromServer(pkt(1, "\x01")+pkt(2, column)+okReply(3, 0xfe, 0, 0, 2, 0))), loggedIn,
		"COM_QUERY [SELECT a FROM t] db=orders columns=1 ok")
	check(t, session(modern, ask, fromServer(pkt(1, "\x01")+pkt(2, column)+row(3))), loggedIn,
		"COM_QUERY [SELECT a FROM t] db=orders columns=1 rows=1")
}

// TestSeveralResultsOfACommandAreOneEvent checks SERVER_MORE_RESULTS_EXISTS.
func TestSeveralResultsOfACommandAreOneEvent(t *testing.T) {
	check(t, session(modern, fromClient(query("CALL p()")),
		fromServer(pkt(1, "\x01")+pkt(2, column)+pkt(3, "\x01x")+okReply(4, 0xfe, 0, 0, 10, 0)+okReply(5, 0, 3, 7, 10, 1)+
			pkt(6, "\x02")+pkt(7, column)+pkt(8, column)+pkt(9, "\x01x\x01y")+okReply(10, 0xfe, 0, 0, 10, 0)+okReply(11, 0, 0, 0, 2, 0)),
		fromClient(query("COMMIT")), fromServer(okReply(1, 0, 0, 0, 2, 0))),
		loggedIn, "COM_QUERY [CALL p()] db=orders columns=1 rows=2 affected=3 insert=7 warnings=1 ok", "COM_QUERY [COMMIT] db=orders ok")
}

// TestStatementsArePairedWithTheirText: the commands of a prepared statement name its ID only. Their events
// hold the text of the statement.
func TestStatementsArePairedWithTheirText(t *testing.T) {
	for _, caps := range []uint32{modern, modern &^ clientDeprecateEOF} {
		// end returns the packet behind column definitions, if there is one, and the next sequence number.
		// last returns the packet behind the rows.
		end := func(seq byte) (string, byte) { return "", seq }
		last := func(seq byte, status uint16) string { return okReply(seq, 0xfe, 0, 0, status, 0) }
		if caps&clientDeprecateEOF == 0 {
			end = func(seq byte) (string, byte) { return eofReply(seq, 2), seq + 1 }
			last = eofReply
		}
		endParameters, columnsAt := end(3)
		endColumns, _ := end(columnsAt + 1)
		endResult, rowsAt := end(3)
		id := le32(5)

		// Prepare, long data, execute, fetch, reset, close, execute again.
		steps := session(caps, fromClient(pkt(0, "\x16SELECT a FROM t WHERE b = ?")),
			fromServer(pkt(1, "\x00"+id+"\x01\x00\x01\x00\x00\x00\x00")+pkt(2, column)+endParameters+pkt(columnsAt, column)+endColumns),
			fromClient(pkt(0, "\x18"+id+"\x00\x00blob")+pkt(0, "\x17"+id+"\x00\x01\x00\x00\x00")),
			fromServer(pkt(1, "\x01")+pkt(2, column)+endResult+pkt(rowsAt, "\x00\x00\x01x")+pkt(rowsAt+1, "\x00\x00\x01y")+last(rowsAt+2, 2)),
			fromClient(pkt(0, "\x1c"+id+"\x01\x00\x00\x00")),
			fromServer(pkt(1, "\x00\x00\x01x")+last(2, 2)),
			fromClient(pkt(0, "\x1a"+id)), fromServer(okReply(1, 0, 0, 0, 2, 0)),
			fromClient(pkt(0, "\x19"+id)+pkt(0, "\x17"+id+"\x00\x01\x00\x00\x00")), fromServer(errorReply(1, 1243, "HY000", "Unknown prepared statement handler")),
			fromClient(pkt(0, "\x01")))
		text := " [SELECT a FROM t WHERE b = ?] #5 db=orders"
		check(t, steps, loggedIn, "COM_STMT_PREPARE"+text+" columns=1 ok", "COM_STMT_SEND_LONG_DATA"+text, "COM_STMT_EXECUTE"+text+" columns=1 rows=2 ok",
			"COM_STMT_FETCH"+text+" rows=1 ok", "COM_STMT_RESET"+text+" ok", "COM_STMT_CLOSE"+text,
			"COM_STMT_EXECUTE #5 db=orders error=1243/HY000/Unknown prepared statement handler failed", "COM_QUIT db=orders")
	}
}

// TestResultOfACursorEndsBehindTheColumns: the rows follow as replies to COM_STMT_FETCH.
func TestResultOfACursorEndsBehindTheColumns(t *testing.T) {
	check(t, session(modern&^clientDeprecateEOF, fromClient(pkt(0, "\x17"+le32(1)+"\x01\x01\x00\x00\x00")),
		fromServer(pkt(1, "\x01")+pkt(2, column)+eofReply(3, 2|statusCursorExists)),
		fromClient(pkt(0, "\x1c"+le32(1)+"\x05\x00\x00\x00")), fromServer(pkt(1, "\x00\x00\x01x")+eofReply(2, 2|0x80))),
		loggedIn, "COM_STMT_EXECUTE #1 db=orders columns=1 ok", "COM_STMT_FETCH #1 db=orders rows=1 ok")
}

// TestExecuteBeforeTheReplyToPrepareIsPaired: clients of MariaDB send both at once, with the statement ID -1.
func TestExecuteBeforeTheReplyToPrepareIsPaired(t *testing.T) {
	check(t, session(modern, fromClient(pkt(0, "\x16SET @a = ?")+pkt(0, "\x17\xff\xff\xff\xff\x00\x01\x00\x00\x00")),
		fromServer(pkt(1, "\x00"+le32(9)+"\x00\x00\x01\x00\x00\x00\x00")+pkt(2, column)+okReply(1, 0, 0, 0, 2, 0))),
		loggedIn, "COM_STMT_PREPARE [SET @a = ?] #9 db=orders ok", "COM_STMT_EXECUTE [SET @a = ?] #4294967295 db=orders ok")
}

// TestFileOfTheClientIsSkipped: the packets of LOAD DATA LOCAL hold no commands. Their sequence numbers wrap
// around to 0.
func TestFileOfTheClientIsSkipped(t *testing.T) {
	data := ""
	for i := range 300 {
		data += pkt(byte(i+2), "\x03SELECT not a command")
	}
	steps := session(modern, fromClient(query("LOAD DATA LOCAL INFILE 'f' INTO TABLE t")), fromServer(pkt(1, "\xfbf")),
		fromClient(data+pkt(byte(302&0xff), "")), fromServer(okReply(byte(303&0xff), 0, 9, 0, 2, 0)),
		fromClient(query("SELECT 1")), fromServer(okReply(1, 0, 0, 0, 2, 0)))
	events := play(steps)
	want := []string{loggedIn, "COM_QUERY [LOAD DATA LOCAL INFILE 'f' INTO TABLE t] db=orders affected=9 ok", "COM_QUERY [SELECT 1] db=orders ok"}
	if got := lines(events); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if sent := events[1].Source.Bytes; sent != uint64(len(steps[3].Data)+len(data)+4) {
		t.Errorf("%d bytes", sent)
	}
}

// TestDatabaseFollowsTheSession: COM_INIT_DB, USE and the session state of an OK packet change the database.
func TestDatabaseFollowsTheSession(t *testing.T) {
	done := fromServer(okReply(1, 0, 0, 0, 2, 0))
	check(t, session(modern, fromClient(pkt(0, "\x02audit")), done, fromClient(query("SELECT 1")), done,
		fromClient(query("use `a b`")), done, fromClient(query("SELECT 1")), done,
		fromClient(query("USE nope")), fromServer(errorReply(1, 1049, "42000", "Unknown database 'nope'")), fromClient(query("SELECT 1")),
		fromServer(pkt(1, "\x00\x00\x00\x02\x40\x00\x00\x00\x07\x01\x05\x04prod")), fromClient(pkt(0, "\x0e")), done),
		loggedIn, "COM_INIT_DB db=audit ok", "COM_QUERY [SELECT 1] db=audit ok", "COM_QUERY [use `a b`] db=audit ok", "COM_QUERY [SELECT 1] db=a b ok",
		"COM_QUERY [USE nope] db=a b error=1049/42000/Unknown database 'nope' failed", "COM_QUERY [SELECT 1] db=a b ok", "COM_PING db=prod ok")
}

// TestChangeOfUserIsALogin: the event has the user of the command, also if the server rejects it.
func TestChangeOfUserIsALogin(t *testing.T) {
	change := fromClient(pkt(0, "\x11root\x00\x14"+strings.Repeat("h", 20)+"mysql\x00\x2d\x00caching_sha2_password\x00"))
	ping := fromClient(pkt(0, "\x0e"))
	events := check(t, session(modern, change, fromServer(pkt(1, "\xfemysql_native_password\x00123\x00")), fromClient(pkt(2, strings.Repeat("h", 20))),
		fromServer(okReply(3, 0, 0, 0, 2, 0)), ping, fromServer(okReply(1, 0, 0, 0, 2, 0))),
		loggedIn, "COM_CHANGE_USER db=mysql ok", "COM_PING db=mysql ok")
	if events[1].Mysql.UserName != "root" || events[2].Mysql.UserName != "root" {
		t.Errorf("%v", events)
	}
	events = check(t, session(modern, change, fromServer(errorReply(1, 1045, "28000", "Access denied"))),
		loggedIn, "COM_CHANGE_USER db=mysql error=1045/28000/Access denied failed")
	if events[1].Mysql.UserName != "root" {
		t.Errorf("%v", events[1])
	}
}

// TestRepliesOfTheirOwnFormAreRead checks commands whose replies are neither an OK packet nor a result set.
func TestRepliesOfTheirOwnFormAreRead(t *testing.T) {
	check(t, session(modern,
		fromClient(pkt(0, "\x09")), fromServer(pkt(1, "Uptime: 5  Threads: 1")),
		fromClient(pkt(0, "\x04t\x00")), fromServer(pkt(1, column)+pkt(2, column)+okReply(3, 0xfe, 0, 0, 2, 0)),
		fromClient(pkt(0, "\x0d")), fromServer(eofReply(1, 2)),
		fromClient(pkt(0, "\x1f")), fromServer(okReply(1, 0, 0, 0, 2, 0)),
		fromClient(pkt(0, "\x15"+strings.Repeat("\x00", 17))), fromServer(okReply(1, 0, 0, 0, 2, 0)),
		fromClient(pkt(0, "\x12"+strings.Repeat("\x00", 10))), fromServer(pkt(1, "\x00anything from here on")), fromClient(query("SELECT 1"))),
		loggedIn, "COM_STATISTICS db=orders ok", "COM_FIELD_LIST db=orders columns=2 ok", "COM_DEBUG db=orders ok", "COM_RESET_CONNECTION db=orders ok",
		"COM_REGISTER_SLAVE db=orders ok", "COM_BINLOG_DUMP db=orders ok")
}

// TestQueryAttributesAreSkipped: with CLIENT_QUERY_ATTRIBUTES they stand before the text.
func TestQueryAttributesAreSkipped(t *testing.T) {
	done := fromServer(okReply(1, 0, 0, 0, 2, 0))
	want := "COM_QUERY [SELECT 1] db=orders ok"
	check(t, session(modern|clientQueryAttrs, fromClient(query("\x00\x01SELECT 1")), done,
		fromClient(query("\x03\x01\x02\x01"+"\xfe\x00\x01a"+"\x08\x00\x01b"+"\x0a\x00\x01c"+"\x03xyz"+"\x04\xea\x07\x01\x02"+"SELECT 1")), done),
		loggedIn, want, want)
}

// TestLongStatementBehindAttributesIsMarked: the attributes take the place of the statement in the front of the packet,
// so that less than what is kept of a statement is read with them.
func TestLongStatementBehindAttributesIsMarked(t *testing.T) {
	attributes := "\x01\x01\x00\x01" + "\xfe\x00\x01a" + "\xfc\x88\x13" + strings.Repeat("v", 5000)
	statement := "SELECT '" + strings.Repeat("x", 9000) + "' INTO OUTFILE '/tmp/x'"
	conversation := protocoltest.Conversation{Port: 3306, Steps: session(modern|clientQueryAttrs,
		fromClient(query(attributes+statement)), fromServer(okReply(1, 0, 0, 0, 2, 0)))}
	protocoltest.CheckSplits(t, list, conversation)
	event := conversation.Events(list)[1]
	text := event.Mysql.Query
	if !slices.Contains(event.Tags, pipeline.TagTruncated) || !strings.HasPrefix(text, "SELECT 'xxx") ||
		!strings.HasSuffix(text, " INTO OUTFILE '/tmp/x'") || len(text) > maxQuery+len("…") {
		t.Errorf("tags %q, %d bytes: %.40q … %.40q", event.Tags, len(text), text, text[max(0, len(text)-40):])
	}
}

// TestLongStatementsAreCutAndNotBuffered: a payload of 16 MiB or more is sent in several packets.
func TestLongStatementsAreCutAndNotBuffered(t *testing.T) {
	long := "INSERT INTO t VALUES (" + strings.Repeat("1,", 5000) + "1)"
	events := play(session(modern, fromClient(query(long)), fromServer(okReply(1, 0, 1, 0, 2, 0)), fromClient(query("COMMIT"))))
	text := events[1].Mysql.Query
	head, tail, cut := strings.Cut(text, "…")
	if len(events) != 3 || len(text) > maxQuery || len(text) < maxQuery/2 || !cut || !strings.HasPrefix(long, head) ||
		len(tail) < longPart || !strings.HasSuffix(long, tail) || !slices.Contains(events[1].Tags, pipeline.TagTruncated) ||
		events[1].Source.Bytes != uint64(len(long)+5) {
		t.Errorf("%d events, %d bytes, %d sent", len(events), len(text), events[1].Source.Bytes)
	}

	// A statement and a row of two packets each.
	huge := "SELECT '" + strings.Repeat("x", maxPacket-9)
	conversation := protocoltest.Conversation{Port: 3306, Steps: session(modern, fromClient(pkt(0, "\x03"+huge)+pkt(1, "more'")),
		fromServer(pkt(1, "\x01")+pkt(2, column)+pkt(3, "\xfe"+strings.Repeat("\xfe", maxPacket-1))+pkt(4, "\xfe\x00\x00\x02\x00")+
			pkt(5, "\x01x")+okReply(6, 0xfe, 0, 0, 2, 0)), fromClient(query("COMMIT")))}
	events = conversation.Cut(65000).Events(list)
	if len(events) != 3 || events[1].Mysql.Rows != 2 || events[2].Mysql.Query != "COMMIT" || events[1].Source.Bytes != 4+maxPacket+9 {
		t.Errorf("%d events, %d rows", len(events), events[1].Mysql.Rows)
	}
}

// TestPaddingHidesNoPartOfAStatement: the padding is a comment or a literal of any length, and may have quotes.
func TestPaddingHidesNoPartOfAStatement(t *testing.T) {
	done := fromServer(okReply(1, 0, 1, 0, 2, 0))
	for _, size := range []int{100, 3000, 4090, 5000, 8180, 8192, 9000, 70_000, 1 << 20} {
		for _, unit := range []string{"x", "''", "\\'", `"`, "`", "--", "*", "/", "# "} {
			padding := strings.Repeat(unit, size/len(unit))
			for _, form := range []string{"SELECT 1 /*%s*/ INTO OUTFILE '/tmp/x'", "SELECT '%s' INTO OUTFILE '/tmp/x'", "SELECT 1 -- %s\nINTO OUTFILE '/tmp/x'"} {
				if strings.Contains(form, "/*") && (unit == "*" || unit == "/") {
					continue // the comment ends at its padding
				}
				statement := strings.Replace(form, "%s", padding, 1)
				events := protocoltest.Conversation{Port: 3306, Steps: session(modern, fromClient(query(statement)), done, fromClient(query("COMMIT")))}.
					Cut(max(1, len(statement)/3)).Events(list)
				if len(events) != 3 {
					t.Fatalf("%d events", len(events))
				}
				text := events[1].Mysql.Query
				if !strings.HasPrefix(text, "SELECT ") || !strings.HasSuffix(text, "INTO OUTFILE '/tmp/x'") || len(text) > maxQuery+len("…") {
					t.Fatalf("%d times %q: %d bytes: %.40q … %.60q", size, unit, len(text), text, text[max(0, len(text)-60):])
				}
				if cut := slices.Contains(events[1].Tags, pipeline.TagTruncated); cut != (len(statement) > maxQuery) {
					t.Fatalf("%d bytes, truncated %t", len(statement), cut)
				}
			}
		}
	}
}

// TestCutStatementsHideTheirSecrets: what names a secret may lie in the part that is left out.
func TestCutStatementsHideTheirSecrets(t *testing.T) {
	done := fromServer(okReply(1, 0, 1, 0, 2, 0))
	for size := 7000; size < 11_000; size += 13 {
		for _, form := range []string{
			"SELECT '%s', password = 'hunter2'", "CREATE USER a /*! %s */ IDENTIFIED BY 'hunter2'", "SELECT 1 FROM t WHERE x = '%s' AND token='hunter2' AND 1",
			"SET PASSWORD = '%shunter2hunter2'", "INSERT INTO t SET a = '%s', password /*! */ = 'hunter2', b = '" + strings.Repeat("y", 600) + "'",
		} {
			statement := strings.Replace(form, "%s", strings.Repeat("x ", size/2), 1)
			events := play(session(modern, fromClient(query(statement)), done, fromClient(query("COMMIT"))))
			if text := events[1].Mysql.Query; strings.Contains(text, "hunter2") {
				t.Fatalf("%d: %.60q … %.200q", size, text, text[max(0, len(text)-200):])
			}
		}
	}
}

// TestMidStreamIsRecognisedByAStatement: the replies decide whether EOF packets follow the columns.
func TestMidStreamIsRecognisedByAStatement(t *testing.T) {
	for _, end := range []string{eofReply(3, 2) + pkt(4, "\x01x") + eofReply(5, 2), pkt(3, "\x01x") + okReply(4, 0xfe, 0, 0, 2, 0)} {
		steps := []protocoltest.Step{
			fromServer("..the end of a row" + okReply(9, 0xfe, 0, 0, 2, 0)),
			fromClient(query("SELECT a FROM t")), fromServer(pkt(1, "\x01") + pkt(2, column) + end),
			fromClient(query("SELECT a FROM t")), fromServer(pkt(1, "\x01") + pkt(2, column) + end),
		}
		got := lines(protocoltest.Conversation{Port: 3307, MidStream: true, Steps: steps}.Events(list))
		one := "COM_QUERY [SELECT a FROM t] columns=1 rows=1 ok"
		if !slices.Equal(got, []string{one, one}) && !slices.Equal(got, []string{one + " partial", one}) {
			t.Errorf("%q", got)
		}
	}
}

// TestWrongRolesAreExchanged: the supposed client sends the greeting.
func TestWrongRolesAreExchanged(t *testing.T) {
	steps := session(modern, fromClient(query("SELECT 1")), fromServer(okReply(1, 0, 0, 0, 2, 0)))
	for i := range steps {
		steps[i].Dir = steps[i].Dir.Other()
	}
	events := check(t, steps, loggedIn, "COM_QUERY [SELECT 1] db=orders ok")
	if events[0].Source.Port != 3306 {
		t.Errorf("%v", events[0])
	}
}

// TestGapCostsTheAffectedCommandsOnly: affected events are partial, and the next command behind the gap is
// found.
func TestGapCostsTheAffectedCommandsOnly(t *testing.T) {
	ask, done := fromClient(query("SELECT a FROM t")), fromServer(okReply(1, 0, 0, 0, 2, 0))
	run := func(steps ...protocoltest.Step) []string {
		return lines(play(session(modern, steps...)))
	}
	is := func(got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got[1:], want) {
			t.Errorf("\n got %q\nwant %q", got[1:], want)
		}
	}
	text := "COM_QUERY [SELECT a FROM t] db=orders"
	rows := pkt(1, "\x01") + pkt(2, column) + pkt(3, "\x01x")

	// A gap among the rows.
	is(run(ask, fromServer(rows), protocoltest.Step{Dir: protocols.Server, Gap: 500}, fromServer("rest of a row"+pkt(9, "\x01x")+pkt(10, "\x01x")+okReply(11, 0xfe, 0, 0, 2, 0)), ask, done),
		text+" columns=1 rows=3 ok partial", text+" ok")

	// The whole reply is lost.
	is(run(ask, protocoltest.Step{Dir: protocols.Server, Gap: 11}, ask, done, ask, done), text+" partial", text+" ok partial", text+" ok")

	// A command is lost.
	is(run(protocoltest.Step{Dir: protocols.Client, Gap: 20}, done, ask, done), text+" ok partial")

	// A gap in a long statement that is skipped: the length of the packet determines the offset behind it.
	long := query("INSERT INTO t VALUES (" + strings.Repeat("1,", 10000) + "1)")
	got := run(fromClient(long[:9000]), protocoltest.Step{Dir: protocols.Client, Gap: 5000}, fromClient(long[14000:]), done, ask, done)
	if len(got) != 3 || !strings.HasSuffix(got[1], "ok partial") || got[2] != text+" ok" {
		t.Errorf("%q", got)
	}
}

// TestStateIsBounded: commands without replies are evicted, and so are the oldest statements.
func TestStateIsBounded(t *testing.T) {
	steps := session(modern)
	for range 5 * maxWaiting {
		steps = append(steps, fromClient(query("SELECT 1")))
	}
	if events := play(steps); len(events) != 1+5*maxWaiting {
		t.Errorf("%d events", len(events))
	}

	var cache statementCache
	for i := range uint32(100_000) {
		cache.add(i, prepared{text: strings.Repeat("x", int(i%maxQuery))})
		if i%3 == 0 {
			cache.remove(i - i%7)
		}
		if len(cache.byID) > maxStatements || cache.size > maxTexts+maxQuery || len(cache.order) > 2*maxStatements+1 {
			t.Fatalf("%d statements, %d bytes, %d in order", len(cache.byID), cache.size, len(cache.order))
		}
	}
	if cache.get(99_999).text == "" {
		t.Error("the last statement is evicted")
	}
}

// TestErrorsDoNotRepeatSecrets: a server quotes the statement that it cannot parse.
func TestErrorsDoNotRepeatSecrets(t *testing.T) {
	check(t, session(modern, fromClient(query("CREATE USER x IDENTIFED BY 'a', y IDENTIFIED BY 'hunter2'")),
		fromServer(errorReply(1, 1064, "42000", "You have an error in your SQL syntax near 'IDENTIFIED BY 'hunter2'' at line 1"))),
		loggedIn, "COM_QUERY [CREATE USER x IDENTIFED BY 'a', y IDENTIFIED BY 'REDACTED'] db=orders error=1064/42000/You have an error in your SQL syntax near 'REDACTED' failed")
}

// TestDetectRejectsOtherProtocols also checks greetings, statements and logins that are recognised.
func TestDetectRejectsOtherProtocols(t *testing.T) {
	is := func(dir protocols.Dir, text string, want protocols.Match) {
		t.Helper()
		if got := detect(dir, []byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	is(protocols.Server, greeting("8.0.36", modern), protocols.Yes)
	is(protocols.Server, greeting("5.5.5-10.11.6-MariaDB", modern), protocols.Yes)
	is(protocols.Server, greeting("8.0.36", modern)[:10], protocols.More)
	is(protocols.Server, "\x4a", protocols.More)
	is(protocols.Server, "SSH-2.0-OpenSSH_9.2\r\n", protocols.No)
	is(protocols.Server, "220 mail ESMTP\r\n", protocols.No)
	is(protocols.Server, greeting("Welcome", modern), protocols.No)
	is(protocols.Client, query("select 1"), protocols.Yes)
	is(protocols.Client, query("/* app */ SELECT 1"), protocols.Yes)
	is(protocols.Client, query("SELEC"), protocols.No)
	is(protocols.Client, query("SELECT 1")[:9], protocols.More)
	is(protocols.Client, pkt(0, "\x0e"), protocols.More)
	is(protocols.Client, pkt(0, "\x17"+le32(1)+"\x00\x01\x00\x00\x00"), protocols.More)
	is(protocols.Client, "GET / HTTP/1.1\r\n\r\n", protocols.No)
	is(protocols.Client, "*1\r\n$4\r\nPING\r\n", protocols.No)
	is(protocols.Client, "\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", protocols.No)
	is(protocols.Client, loginPacket(modern, "shop", ""), protocols.Yes)
}

// FuzzConversation plays arbitrary bytes of both sides, alone and behind a login. Each event must be one of
// MySQL, with an ID and a bounded query.
func FuzzConversation(f *testing.F) {
	f.Add([]byte(query("SELECT 1")), []byte(pkt(1, "\x01")+pkt(2, column)+pkt(3, "\x01x")+okReply(4, 0xfe, 0, 0, 10, 0)+okReply(5, 0, 3, 7, 2, 1)), false)
	f.Add([]byte(pkt(0, "\x16SELECT ?")), []byte(pkt(1, "\x00"+le32(1)+"\x01\x00\x01\x00\x00\x00\x00")), true)
	f.Add([]byte(loginPacket(modern, "a", "b")), []byte(greeting("8.0.1", modern)), true)
	f.Fuzz(func(t *testing.T, first, second []byte, midStream bool) {
		lineartest.CheckRepeatedPair(t, lineartest.Default, first, second, func(first, second []byte) {
			steps := []protocoltest.Step{
				fromClient(string(first)), fromServer(string(second)), fromServer(string(first)),
				fromClient(string(second)), fromClient(string(first)),
			}
			conversation := protocoltest.Conversation{Port: 3306, MidStream: midStream, Steps: steps}
			if !midStream {
				conversation.Steps = session(modern, steps...)
			}
			for _, event := range conversation.Events(list) {
				// A byte that is not UTF-8 becomes four characters, \xNN, after the cut.
				if event.Mysql == nil || len(event.Id) != 16 || len(event.Mysql.Query) > 4*(maxQuery+10) {
					t.Fatalf("%v", event)
				}
			}
		})
	})
}

// TestStatementsAreThoseOfTshark compares the statements in the shared captures with those that tshark finds.
func TestStatementsAreThoseOfTshark(t *testing.T) {
	dir := protocoltest.SharedData(t, "../..")
	files, _ := filepath.Glob(filepath.Join(dir, "pcaps", "*mysql*"))
	same, statements := 0, 0
	for _, path := range files {
		want := oracle(t, filepath.Join(dir, "oracle", "detail", filepath.Base(path)+".tsv"))
		got := map[string]int{}
		for _, event := range protocoltest.Capture(t, list, path) {
			if event.Mysql.Command == "COM_QUERY" {
				got[plain(event.Mysql.Query)]++
			}
		}
		diff := 0
		for text, count := range want {
			statements += count
			if got[text] != count {
				diff++
				t.Errorf("%s: %q: %d, tshark %d", filepath.Base(path), text, got[text], count)
			}
		}
		if diff == 0 {
			same++
		}
	}
	if statements < 40 {
		t.Errorf("tshark finds %d statements in %d captures, want at least 40", statements, len(files))
	}
	t.Logf("%d of %d captures equal, %d statements", same, len(files), statements)
}

// plain returns a statement with one blank for each run of white space, escaped or not.
func plain(sql string) string {
	unescaped := strings.NewReplacer(`\n`, " ", `\r`, " ", `\t`, " ").Replace(sql)
	return strings.Join(strings.Fields(unescaped), " ")
}

// oracle reads the statements of COM_QUERY from the output of tshark and counts equal ones. A missing file
// has none.
func oracle(t *testing.T, path string) map[string]int {
	t.Helper()
	out := map[string]int{}
	file, err := os.Open(path)
	if err != nil {
		return out
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if cells := strings.SplitN(scanner.Text(), "\t", 6); len(cells) == 6 && cells[1] == "mysql_cmd" && cells[4] == "3" {
			out[plain(cells[5])]++
		}
	}
	return out
}

// BenchmarkQuery measures a query and its reply of one column and ten rows, through the framework. An
// operation is one command.
func BenchmarkQuery(b *testing.B) {
	reply := pkt(1, "\x01") + pkt(2, column)
	for i := range byte(10) {
		reply += pkt(3+i, "\x05value")
	}
	reply += okReply(13, 0xfe, 0, 0, 2, 0)
	ask, answer := []byte(query("SELECT a FROM t WHERE b = 'value' AND c > 5")), []byte(reply)
	events := 0
	conversation := protocoltest.Conversation{Port: 3306}
	conn := protocols.NewSet(list, protocols.Default(), nil).Open(conversation.Info(), func(event *pipeline.Event) {
		events++
		pipeline.ReleaseEvent(event)
	})
	for i, step := range session(modern) {
		conn.Data(step.Dir, step.Data, int64(i))
	}
	b.SetBytes(int64(len(ask) + len(answer)))
	b.ReportAllocs()
	for b.Loop() {
		conn.Data(protocols.Client, ask, 1)
		conn.Data(protocols.Server, answer, 2)
	}
	if events < 2 {
		b.Fatal("no events")
	}
}

// TestTranscriptsMatchTheirGoldens compares every field of the events of each transcript with its golden.
func TestTranscriptsMatchTheirGoldens(t *testing.T) { protocoltest.CheckGoldens(t, list, "mysql") }

// TestTranscriptsHoldTheirProperties: cuts change nothing, and what is not partial is true, whatever was lost.
func TestTranscriptsHoldTheirProperties(t *testing.T) {
	protocoltest.CheckTranscripts(t, list, "../testdata", "mysql")
}
