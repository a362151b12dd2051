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
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

var list = []protocols.Protocol{Protocol}

var fromClient, fromServer = protocoltest.Client, protocoltest.Server

// play returns the events of steps on the port of the protocol.
func play(steps []protocoltest.Step) []*pipeline.Event {
	return protocoltest.Conversation{Port: 3306, Steps: steps}.Events(list)
}

// pkt is a packet.
func pkt(seq byte, payload string) string {
	n := len(payload)
	return string([]byte{byte(n), byte(n >> 8), byte(n >> 16), seq}) + payload
}

// line is an event in short.
func line(e *pipeline.Event) string {
	m := e.Mysql
	s := m.Command
	add := func(ok bool, format string, v ...any) {
		if ok {
			s += fmt.Sprintf(" "+format, v...)
		}
	}
	add(m.Query != "", "[%s]", m.Query)
	add(m.StatementId > 0, "#%d", m.StatementId)
	add(m.UserName != "" && m.Command == "COM_CONNECT", "user=%s", m.UserName)
	add(m.ServerVersion != "", "server=%s", m.ServerVersion)
	add(m.Database != "", "db=%s", m.Database)
	add(m.Columns > 0, "columns=%d", m.Columns)
	add(m.Rows > 0, "rows=%d", m.Rows)
	add(m.AffectedRows > 0, "affected=%d", m.AffectedRows)
	add(m.InsertId > 0, "insert=%d", m.InsertId)
	add(m.Warnings > 0, "warnings=%d", m.Warnings)
	add(m.ErrorCode > 0, "error=%d/%s/%s", m.ErrorCode, m.SqlState, m.ErrorMessage)
	add(e.Outcome == pipeline.Outcome_SUCCESS, "ok")
	add(e.Outcome == pipeline.Outcome_FAILURE, "failed")
	add(e.Partial, "partial")
	return s
}

func lines(events []*pipeline.Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, line(e))
	}
	return out
}

// check plays steps in every split and compares the events.
func check(t *testing.T, steps []protocoltest.Step, want ...string) []*pipeline.Event {
	t.Helper()
	c := protocoltest.Conversation{Port: 3306, Steps: steps}
	protocoltest.CheckSplits(t, list, c)
	events := c.Events(list)
	if got := lines(events); !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	return events
}

func le32(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }

const modern = clientProtocol41 | clientSecure | 1<<19 | clientAuthLenEnc | clientConnectWithDB | clientDeprecateEOF | clientSessionTrack

// hello is a greeting with the capabilities given.
func hello(version string, caps uint32) string {
	return pkt(0, "\x0a"+version+"\x00"+"\x01\x00\x00\x00"+"12345678\x00"+le32(caps)[:2]+"\x21"+"\x02\x00"+le32(caps)[2:]+"\x15"+
		strings.Repeat("\x00", 10)+"123456789012\x00"+"caching_sha2_password\x00")
}

// who is a login.
func who(caps uint32, user, db string) string {
	s := le32(caps) + le32(1<<24) + "\x2d" + strings.Repeat("\x00", 23) + user + "\x00" + "\x20" + strings.Repeat("p", 32)
	if caps&clientConnectWithDB != 0 {
		s += db + "\x00"
	}
	return pkt(1, s+"caching_sha2_password\x00")
}

// ok is an OK packet: affected rows, insert id, status, warnings.
func ok(seq byte, head byte, affected, insert byte, status uint16, warnings byte) string {
	return pkt(seq, string([]byte{head, affected, insert, byte(status), byte(status >> 8), warnings, 0}))
}

func eof(seq byte, status uint16) string {
	return pkt(seq, string([]byte{0xfe, 0, 0, byte(status), byte(status >> 8)}))
}

func fail(seq byte, code uint16, state, text string) string {
	return pkt(seq, string([]byte{0xff, byte(code), byte(code >> 8)})+"#"+state+text)
}

const column = "\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00"

func query(q string) string { return pkt(0, "\x03"+q) }

// session is a login with these capabilities, then more.
func session(caps uint32, more ...protocoltest.Step) []protocoltest.Step {
	return append([]protocoltest.Step{
		fromServer(hello("8.0.36", caps)), fromClient(who(caps, "shop", "orders")), fromServer(ok(2, 0, 0, 0, 2, 0)),
	}, more...)
}

const loggedIn = "COM_CONNECT user=shop server=8.0.36 db=orders ok"

// TestLoginIsOneEvent: whatever the method of authentication needs.
func TestLoginIsOneEvent(t *testing.T) {
	check(t, session(modern), loggedIn)
	check(t, []protocoltest.Step{ // caching_sha2_password, not in its cache: public key, full
		fromServer(hello("8.0.36", modern)), fromClient(who(modern, "shop", "")),
		fromServer(pkt(2, "\x01\x04")), fromClient(pkt(3, "\x02")), fromServer(pkt(4, "\x01-----BEGIN PUBLIC KEY-----")),
		fromClient(pkt(5, strings.Repeat("\xaa", 256))), fromServer(ok(6, 0, 0, 0, 2, 0)), fromClient(query("SELECT 1")),
	}, "COM_CONNECT user=shop server=8.0.36 ok", "COM_QUERY [SELECT 1]")
	check(t, []protocoltest.Step{ // another method, then refused
		fromServer(hello("5.7.1", modern)), fromClient(who(modern, "root", "")),
		fromServer(pkt(2, "\xfemysql_native_password\x0012345678901234567890\x00")), fromClient(pkt(3, strings.Repeat("h", 20))),
		fromServer(fail(4, 1045, "28000", "Access denied for user 'root'")),
	}, "COM_CONNECT user=root server=5.7.1 error=1045/28000/Access denied for user 'root' failed")
	check(t, []protocoltest.Step{fromServer(pkt(0, "\xff\x69\x04Host is blocked"))}, "COM_CONNECT error=1129//Host is blocked failed")
	check(t, []protocoltest.Step{fromServer(hello("8.0.36", modern))})
	check(t, []protocoltest.Step{fromServer(hello("8.0.36", modern)), fromClient(who(modern, "shop", "orders"))},
		"COM_CONNECT user=shop server=8.0.36 db=orders")
}

// TestTLSIsHandedOver: both directions, what is unread too.
func TestTLSIsHandedOver(t *testing.T) {
	var got [2]string
	fake := protocols.Protocol{
		Name: "tls", TCP: true,
		Detect: func(protocols.Dir, []byte) protocols.Match { return protocols.No },
		Sync:   func(protocols.Dir, []byte) (int, protocols.Match) { return 0, protocols.No },
		New:    func() protocols.Parser { return &taker{got: &got} },
	}
	steps := []protocoltest.Step{
		fromServer(hello("8.0.36", modern|clientSSL)),
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

// A taker notes what it is given.
type taker struct{ got *[2]string }

func (p *taker) Reset(*protocols.Conn) {}
func (p *taker) Parse(dir protocols.Dir, b []byte, _ int64) (int, error) {
	p.got[dir] += string(b)
	return len(b), nil
}
func (p *taker) Gap(protocols.Dir, int) bool { return true }
func (p *taker) End(protocols.Dir, int64)    {}
func (p *taker) Close(int64)                 {}

// TestCompressionEndsTheConnection: after the login nothing can be read.
func TestCompressionEndsTheConnection(t *testing.T) {
	check(t, session(modern|clientCompress, fromClient(query("SELECT 1"))), loggedIn)
}

// TestRowsAreCounted: with and without the EOF packets that newer servers leave out.
func TestRowsAreCounted(t *testing.T) {
	q := fromClient(query("SELECT a FROM t"))
	want := "COM_QUERY [SELECT a FROM t] db=orders columns=1 rows=3 warnings=1 ok"
	row := func(seq byte) string { return pkt(seq, "\x01x") }
	check(t, session(modern, q, fromServer(pkt(1, "\x01")+pkt(2, column)+row(3)+row(4)+row(5)+ok(6, 0xfe, 0, 0, 2, 1))), loggedIn, want)
	check(t, session(modern&^clientDeprecateEOF, q,
		fromServer(pkt(1, "\x01")+pkt(2, column)+eof(3, 2)+row(4)+row(5)+row(6)+pkt(7, "\xfe\x01\x00\x02\x00"))), loggedIn, want)
	check(t, session(modern, q, fromServer(pkt(1, "\x01")+pkt(2, column)+row(3)+fail(4, 1317, "70100", "Query execution was interrupted"))),
		loggedIn, "COM_QUERY [SELECT a FROM t] db=orders columns=1 rows=1 error=1317/70100/Query execution was interrupted failed")
	check(t, session(modern, q, fromServer(pkt(1, "\x01")+pkt(2, column)+ok(3, 0xfe, 0, 0, 2, 0))), loggedIn,
		"COM_QUERY [SELECT a FROM t] db=orders columns=1 ok")
	check(t, session(modern, q, fromServer(pkt(1, "\x01")+pkt(2, column)+row(3))), loggedIn,
		"COM_QUERY [SELECT a FROM t] db=orders columns=1 rows=1")
}

// TestOneCommandMayHaveSeveralResults: SERVER_MORE_RESULTS_EXISTS.
func TestOneCommandMayHaveSeveralResults(t *testing.T) {
	check(t, session(modern, fromClient(query("CALL p()")),
		fromServer(pkt(1, "\x01")+pkt(2, column)+pkt(3, "\x01x")+ok(4, 0xfe, 0, 0, 10, 0)+ok(5, 0, 3, 7, 10, 1)+
			pkt(6, "\x02")+pkt(7, column)+pkt(8, column)+pkt(9, "\x01x\x01y")+ok(10, 0xfe, 0, 0, 10, 0)+ok(11, 0, 0, 0, 2, 0)),
		fromClient(query("COMMIT")), fromServer(ok(1, 0, 0, 0, 2, 0))),
		loggedIn, "COM_QUERY [CALL p()] db=orders columns=1 rows=2 affected=3 insert=7 warnings=1 ok", "COM_QUERY [COMMIT] db=orders ok")
}

// TestStatementsArePairedWithTheirText: prepare, execute in binary rows, fetch by a cursor, reset, long data,
// close.
func TestStatementsArePairedWithTheirText(t *testing.T) {
	for _, caps := range []uint32{modern, modern &^ clientDeprecateEOF} {
		end := func(seq byte) (string, byte) { return "", seq }
		last := func(seq byte, status uint16) string { return ok(seq, 0xfe, 0, 0, status, 0) }
		if caps&clientDeprecateEOF == 0 {
			end = func(seq byte) (string, byte) { return eof(seq, 2), seq + 1 }
			last = eof
		}
		e1, s1 := end(3)
		e2, _ := end(s1 + 1)
		e3, s3 := end(3)
		id := le32(5)
		steps := session(caps, fromClient(pkt(0, "\x16SELECT a FROM t WHERE b = ?")),
			fromServer(pkt(1, "\x00"+id+"\x01\x00\x01\x00\x00\x00\x00")+pkt(2, column)+e1+pkt(s1, column)+e2),
			fromClient(pkt(0, "\x18"+id+"\x00\x00blob")+pkt(0, "\x17"+id+"\x00\x01\x00\x00\x00")),
			fromServer(pkt(1, "\x01")+pkt(2, column)+e3+pkt(s3, "\x00\x00\x01x")+pkt(s3+1, "\x00\x00\x01y")+last(s3+2, 2)),
			fromClient(pkt(0, "\x1c"+id+"\x01\x00\x00\x00")),
			fromServer(pkt(1, "\x00\x00\x01x")+last(2, 2)),
			fromClient(pkt(0, "\x1a"+id)), fromServer(ok(1, 0, 0, 0, 2, 0)),
			fromClient(pkt(0, "\x19"+id)+pkt(0, "\x17"+id+"\x00\x01\x00\x00\x00")), fromServer(fail(1, 1243, "HY000", "Unknown prepared statement handler")),
			fromClient(pkt(0, "\x01")))
		text := " [SELECT a FROM t WHERE b = ?] #5 db=orders"
		check(t, steps, loggedIn, "COM_STMT_PREPARE"+text+" columns=1 ok", "COM_STMT_SEND_LONG_DATA"+text, "COM_STMT_EXECUTE"+text+" columns=1 rows=2 ok",
			"COM_STMT_FETCH"+text+" rows=1 ok", "COM_STMT_RESET"+text+" ok", "COM_STMT_CLOSE"+text,
			"COM_STMT_EXECUTE #5 db=orders error=1243/HY000/Unknown prepared statement handler failed", "COM_QUIT db=orders")
	}
}

// TestCursorEndsBehindTheColumns: the rows come by COM_STMT_FETCH.
func TestCursorEndsBehindTheColumns(t *testing.T) {
	check(t, session(modern&^clientDeprecateEOF, fromClient(pkt(0, "\x17"+le32(1)+"\x01\x01\x00\x00\x00")),
		fromServer(pkt(1, "\x01")+pkt(2, column)+eof(3, 2|statusCursorExists)),
		fromClient(pkt(0, "\x1c"+le32(1)+"\x05\x00\x00\x00")), fromServer(pkt(1, "\x00\x00\x01x")+eof(2, 2|0x80))),
		loggedIn, "COM_STMT_EXECUTE #1 db=orders columns=1 ok", "COM_STMT_FETCH #1 db=orders rows=1 ok")
}

// TestClientsMaySendAhead: MariaDB's prepare and execute in one go, with statement -1.
func TestClientsMaySendAhead(t *testing.T) {
	check(t, session(modern, fromClient(pkt(0, "\x16SET @a = ?")+pkt(0, "\x17\xff\xff\xff\xff\x00\x01\x00\x00\x00")),
		fromServer(pkt(1, "\x00"+le32(9)+"\x00\x00\x01\x00\x00\x00\x00")+pkt(2, column)+ok(1, 0, 0, 0, 2, 0))),
		loggedIn, "COM_STMT_PREPARE [SET @a = ?] #9 db=orders ok", "COM_STMT_EXECUTE [SET @a = ?] #4294967295 db=orders ok")
}

// TestFileOfTheClientIsPassed: LOAD DATA LOCAL, whose packets' numbers go round through 0.
func TestFileOfTheClientIsPassed(t *testing.T) {
	data := ""
	for i := range 300 {
		data += pkt(byte(i+2), "\x03SELECT not a command")
	}
	steps := session(modern, fromClient(query("LOAD DATA LOCAL INFILE 'f' INTO TABLE t")), fromServer(pkt(1, "\xfbf")),
		fromClient(data+pkt(byte(302&0xff), "")), fromServer(ok(byte(303&0xff), 0, 9, 0, 2, 0)),
		fromClient(query("SELECT 1")), fromServer(ok(1, 0, 0, 0, 2, 0)))
	events := play(steps)
	want := []string{loggedIn, "COM_QUERY [LOAD DATA LOCAL INFILE 'f' INTO TABLE t] db=orders affected=9 ok", "COM_QUERY [SELECT 1] db=orders ok"}
	if got := lines(events); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if b := events[1].Source.Bytes; b != uint64(len(steps[3].Data)+len(data)+4) {
		t.Errorf("%d bytes", b)
	}
}

// TestDatabaseFollowsTheSession: COM_INIT_DB, USE, and what the server says of its state.
func TestDatabaseFollowsTheSession(t *testing.T) {
	done := fromServer(ok(1, 0, 0, 0, 2, 0))
	check(t, session(modern, fromClient(pkt(0, "\x02audit")), done, fromClient(query("SELECT 1")), done,
		fromClient(query("use `a b`")), done, fromClient(query("SELECT 1")), done,
		fromClient(query("USE nope")), fromServer(fail(1, 1049, "42000", "Unknown database 'nope'")), fromClient(query("SELECT 1")),
		fromServer(pkt(1, "\x00\x00\x00\x02\x40\x00\x00\x00\x07\x01\x05\x04prod")), fromClient(pkt(0, "\x0e")), done),
		loggedIn, "COM_INIT_DB db=audit ok", "COM_QUERY [SELECT 1] db=audit ok", "COM_QUERY [use `a b`] db=audit ok", "COM_QUERY [SELECT 1] db=a b ok",
		"COM_QUERY [USE nope] db=a b error=1049/42000/Unknown database 'nope' failed", "COM_QUERY [SELECT 1] db=a b ok", "COM_PING db=prod ok")
}

// TestChangeOfUser: it is a login of its own, and forgets the statements.
func TestChangeOfUser(t *testing.T) {
	change := fromClient(pkt(0, "\x11root\x00\x14"+strings.Repeat("h", 20)+"mysql\x00\x2d\x00caching_sha2_password\x00"))
	ping := fromClient(pkt(0, "\x0e"))
	events := check(t, session(modern, change, fromServer(pkt(1, "\xfemysql_native_password\x00123\x00")), fromClient(pkt(2, strings.Repeat("h", 20))),
		fromServer(ok(3, 0, 0, 0, 2, 0)), ping, fromServer(ok(1, 0, 0, 0, 2, 0))),
		loggedIn, "COM_CHANGE_USER db=mysql ok", "COM_PING db=mysql ok")
	if events[1].Mysql.UserName != "root" || events[2].Mysql.UserName != "root" {
		t.Errorf("%v", events)
	}
	events = check(t, session(modern, change, fromServer(fail(1, 1045, "28000", "Access denied"))),
		loggedIn, "COM_CHANGE_USER db=mysql error=1045/28000/Access denied failed")
	if events[1].Mysql.UserName != "root" {
		t.Errorf("%v", events[1])
	}
}

// TestOtherCommands have their own forms of reply.
func TestOtherCommands(t *testing.T) {
	check(t, session(modern,
		fromClient(pkt(0, "\x09")), fromServer(pkt(1, "Uptime: 5  Threads: 1")),
		fromClient(pkt(0, "\x04t\x00")), fromServer(pkt(1, column)+pkt(2, column)+ok(3, 0xfe, 0, 0, 2, 0)),
		fromClient(pkt(0, "\x0d")), fromServer(eof(1, 2)),
		fromClient(pkt(0, "\x1f")), fromServer(ok(1, 0, 0, 0, 2, 0)),
		fromClient(pkt(0, "\x15"+strings.Repeat("\x00", 17))), fromServer(ok(1, 0, 0, 0, 2, 0)),
		fromClient(pkt(0, "\x12"+strings.Repeat("\x00", 10))), fromServer(pkt(1, "\x00anything from here on")), fromClient(query("SELECT 1"))),
		loggedIn, "COM_STATISTICS db=orders ok", "COM_FIELD_LIST db=orders columns=2 ok", "COM_DEBUG db=orders ok", "COM_RESET_CONNECTION db=orders ok",
		"COM_REGISTER_SLAVE db=orders ok", "COM_BINLOG_DUMP db=orders ok")
}

// TestQueryAttributesStandBeforeTheText: CLIENT_QUERY_ATTRIBUTES.
func TestQueryAttributesStandBeforeTheText(t *testing.T) {
	done := fromServer(ok(1, 0, 0, 0, 2, 0))
	want := "COM_QUERY [SELECT 1] db=orders ok"
	check(t, session(modern|clientQueryAttrs, fromClient(query("\x00\x01SELECT 1")), done,
		fromClient(query("\x03\x01\x02\x01"+"\xfe\x00\x01a"+"\x08\x00\x01b"+"\x0a\x00\x01c"+"\x03xyz"+"\x04\xea\x07\x01\x02"+"SELECT 1")), done),
		loggedIn, want, want)
}

// TestLongStatementsAreCutAndNotGathered: payloads of 16 MiB and more go over several packets.
func TestLongStatementsAreCutAndNotGathered(t *testing.T) {
	long := "INSERT INTO t VALUES (" + strings.Repeat("1,", 5000) + "1)"
	events := play(session(modern, fromClient(query(long)), fromServer(ok(1, 0, 1, 0, 2, 0)), fromClient(query("COMMIT"))))
	q := events[1].Mysql.Query
	if len(events) != 3 || len(q) != maxQuery+len("…") || !strings.HasPrefix(long, strings.TrimSuffix(q, "…")) || events[1].Source.Bytes != uint64(len(long)+5) {
		t.Errorf("%d events, %d bytes, %d sent", len(events), len(q), events[1].Source.Bytes)
	}
	huge := "SELECT '" + strings.Repeat("x", maxPacket-9)
	c := protocoltest.Conversation{Port: 3306, Steps: session(modern, fromClient(pkt(0, "\x03"+huge)+pkt(1, "more'")),
		fromServer(pkt(1, "\x01")+pkt(2, column)+pkt(3, "\xfe"+strings.Repeat("\xfe", maxPacket-1))+pkt(4, "\xfe\x00\x00\x02\x00")+
			pkt(5, "\x01x")+ok(6, 0xfe, 0, 0, 2, 0)), fromClient(query("COMMIT")))}
	events = c.Cut(65000).Events(list)
	if len(events) != 3 || events[1].Mysql.Rows != 2 || events[2].Mysql.Query != "COMMIT" || events[1].Source.Bytes != 4+maxPacket+9 {
		t.Errorf("%d events, %d rows", len(events), events[1].Mysql.Rows)
	}
}

// TestMidStream: the connection is known by a statement; whether EOF packets end columns is seen from what
// comes.
func TestMidStream(t *testing.T) {
	for _, end := range []string{eof(3, 2) + pkt(4, "\x01x") + eof(5, 2), pkt(3, "\x01x") + ok(4, 0xfe, 0, 0, 2, 0)} {
		steps := []protocoltest.Step{
			fromServer("..the end of a row" + ok(9, 0xfe, 0, 0, 2, 0)),
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

// TestRolesGuessedWrongAreExchanged: the greeting comes from who was thought to be the client.
func TestRolesGuessedWrongAreExchanged(t *testing.T) {
	steps := session(modern, fromClient(query("SELECT 1")), fromServer(ok(1, 0, 0, 0, 2, 0)))
	for i := range steps {
		steps[i].Dir = steps[i].Dir.Other()
	}
	e := check(t, steps, loggedIn, "COM_QUERY [SELECT 1] db=orders ok")
	if e[0].Source.Port != 3306 {
		t.Errorf("%v", e[0])
	}
}

// TestGaps: what they touch is partial, what follows is found again.
func TestGaps(t *testing.T) {
	ask, done := fromClient(query("SELECT a FROM t")), fromServer(ok(1, 0, 0, 0, 2, 0))
	run := func(steps ...protocoltest.Step) []string {
		return lines(play(session(modern, steps...)))
	}
	is := func(got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got[1:], want) {
			t.Errorf("\n got %q\nwant %q", got[1:], want)
		}
	}
	q := "COM_QUERY [SELECT a FROM t] db=orders"
	rows := pkt(1, "\x01") + pkt(2, column) + pkt(3, "\x01x")
	// among the rows
	is(run(ask, fromServer(rows), protocoltest.Step{Dir: protocols.Server, Gap: 500}, fromServer("rest of a row"+pkt(9, "\x01x")+pkt(10, "\x01x")+ok(11, 0xfe, 0, 0, 2, 0)), ask, done),
		q+" columns=1 rows=3 ok partial", q+" ok")
	// the whole reply
	is(run(ask, protocoltest.Step{Dir: protocols.Server, Gap: 11}, ask, done, ask, done), q+" partial", q+" ok partial", q+" ok")
	// a command
	is(run(protocoltest.Step{Dir: protocols.Client, Gap: 20}, done, ask, done), q+" ok partial")
	// inside a long statement that is skipped: the place is not lost
	long := query("INSERT INTO t VALUES (" + strings.Repeat("1,", 10000) + "1)")
	got := run(fromClient(long[:9000]), protocoltest.Step{Dir: protocols.Client, Gap: 5000}, fromClient(long[14000:]), done, ask, done)
	if len(got) != 3 || !strings.HasSuffix(got[1], "ok partial") || got[2] != q+" ok" {
		t.Errorf("%q", got)
	}
}

// TestStateDoesNotGrow: commands without replies, statements without end.
func TestStateDoesNotGrow(t *testing.T) {
	steps := session(modern)
	for range 5 * maxWaiting {
		steps = append(steps, fromClient(query("SELECT 1")))
	}
	if e := play(steps); len(e) != 1+5*maxWaiting {
		t.Errorf("%d events", len(e))
	}
	var s statementCache
	for i := range uint32(100_000) {
		s.add(i, prepared{text: strings.Repeat("x", int(i%maxQuery))})
		if i%3 == 0 {
			s.remove(i - i%7)
		}
		if len(s.byID) > maxStatements || s.size > maxTexts+maxQuery || len(s.order) > 2*maxStatements+1 {
			t.Fatalf("%d statements, %d bytes, %d in order", len(s.byID), s.size, len(s.order))
		}
	}
	if s.get(99_999).text == "" {
		t.Error("the last is forgotten")
	}
}

// TestErrorsDoNotRepeatSecrets: a server quotes the statement that it could not read.
func TestErrorsDoNotRepeatSecrets(t *testing.T) {
	check(t, session(modern, fromClient(query("CREATE USER x IDENTIFED BY 'a', y IDENTIFIED BY 'hunter2'")),
		fromServer(fail(1, 1064, "42000", "You have an error in your SQL syntax near 'IDENTIFIED BY 'hunter2'' at line 1"))),
		loggedIn, "COM_QUERY [CREATE USER x IDENTIFED BY 'a', y IDENTIFIED BY 'REDACTED'] db=orders error=1064/42000/You have an error in your SQL syntax near 'REDACTED' failed")
}

// TestDetectLeavesTwinsAlone.
func TestDetectLeavesTwinsAlone(t *testing.T) {
	is := func(dir protocols.Dir, b string, want protocols.Match) {
		t.Helper()
		if got := detect(dir, []byte(b)); got != want {
			t.Errorf("%q: %d, want %d", b, got, want)
		}
	}
	is(protocols.Server, hello("8.0.36", modern), protocols.Yes)
	is(protocols.Server, hello("5.5.5-10.11.6-MariaDB", modern), protocols.Yes)
	is(protocols.Server, hello("8.0.36", modern)[:10], protocols.More)
	is(protocols.Server, "\x4a", protocols.More)
	is(protocols.Server, "SSH-2.0-OpenSSH_9.2\r\n", protocols.No)
	is(protocols.Server, "220 mail ESMTP\r\n", protocols.No)
	is(protocols.Server, hello("Welcome", modern), protocols.No)
	is(protocols.Client, query("select 1"), protocols.Yes)
	is(protocols.Client, query("/* app */ SELECT 1"), protocols.Yes)
	is(protocols.Client, query("SELEC"), protocols.No)
	is(protocols.Client, query("SELECT 1")[:9], protocols.More)
	is(protocols.Client, pkt(0, "\x0e"), protocols.More)
	is(protocols.Client, pkt(0, "\x17"+le32(1)+"\x00\x01\x00\x00\x00"), protocols.More)
	is(protocols.Client, "GET / HTTP/1.1\r\n\r\n", protocols.No)
	is(protocols.Client, "*1\r\n$4\r\nPING\r\n", protocols.No)
	is(protocols.Client, "\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", protocols.No)
	is(protocols.Client, who(modern, "shop", ""), protocols.Yes)
}

// FuzzConversation plays any bytes of both sides, alone and behind a login: no panic, no lost command.
func FuzzConversation(f *testing.F) {
	f.Add([]byte(query("SELECT 1")), []byte(pkt(1, "\x01")+pkt(2, column)+pkt(3, "\x01x")+ok(4, 0xfe, 0, 0, 10, 0)+ok(5, 0, 3, 7, 2, 1)), false)
	f.Add([]byte(pkt(0, "\x16SELECT ?")), []byte(pkt(1, "\x00"+le32(1)+"\x01\x00\x01\x00\x00\x00\x00")), true)
	f.Add([]byte(who(modern, "a", "b")), []byte(hello("8.0.1", modern)), true)
	f.Fuzz(func(t *testing.T, a, b []byte, bare bool) {
		steps := []protocoltest.Step{fromClient(string(a)), fromServer(string(b)), fromServer(string(a)), fromClient(string(b)), fromClient(string(a))}
		c := protocoltest.Conversation{Port: 3306, MidStream: bare, Steps: steps}
		if !bare {
			c.Steps = session(modern, steps...)
		}
		for _, e := range c.Events(list) {
			if e.Mysql == nil || len(e.Id) != 16 || len(e.Mysql.Query) > maxQuery+10 {
				t.Fatalf("%v", e)
			}
		}
	})
}

// TestOracle compares the statements with those that tshark finds in the shared captures.
func TestOracle(t *testing.T) {
	dir := protocoltest.SharedData(t, "../..")
	files, _ := filepath.Glob(filepath.Join(dir, "pcaps", "*mysql*"))
	same := 0
	for _, path := range files {
		want := oracle(t, filepath.Join(dir, "oracle", "detail", filepath.Base(path)+".tsv"))
		got := map[string]int{}
		for _, e := range protocoltest.Capture(t, list, path) {
			if e.Mysql.Command == "COM_QUERY" {
				got[plain(e.Mysql.Query)]++
			}
		}
		diff := 0
		for k, n := range want {
			if got[k] != n {
				diff++
				t.Errorf("%s: %q: %d, tshark %d", filepath.Base(path), k, got[k], n)
			}
		}
		if diff == 0 {
			same++
		}
	}
	t.Logf("%d of %d captures equal", same, len(files))
}

func plain(q string) string {
	return strings.Join(strings.Fields(strings.NewReplacer(`\n`, " ", `\r`, " ", `\t`, " ").Replace(q)), " ")
}

// oracle reads the statements of COM_QUERY.
func oracle(t *testing.T, path string) map[string]int {
	t.Helper()
	out := map[string]int{}
	f, err := os.Open(path)
	if err != nil {
		return out
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if v := strings.SplitN(sc.Text(), "\t", 6); len(v) == 6 && v[1] == "mysql_cmd" && v[4] == "3" {
			out[plain(v[5])]++
		}
	}
	return out
}

// BenchmarkQuery is a query, its reply of a column and ten rows, through the framework; one operation is one
// command.
func BenchmarkQuery(b *testing.B) {
	reply := pkt(1, "\x01") + pkt(2, column)
	for i := range byte(10) {
		reply += pkt(3+i, "\x05value")
	}
	reply += ok(13, 0xfe, 0, 0, 2, 0)
	ask, answer := []byte(query("SELECT a FROM t WHERE b = 'value' AND c > 5")), []byte(reply)
	n := 0
	c := protocols.NewSet(list, protocols.Default(), nil).Open((&protocoltest.Conversation{Port: 3306}).Info(), func(e *pipeline.Event) {
		n++
		pipeline.ReleaseEvent(e)
	})
	for i, s := range session(modern) {
		c.Data(s.Dir, s.Data, int64(i))
	}
	b.SetBytes(int64(len(ask) + len(answer)))
	b.ReportAllocs()
	for b.Loop() {
		c.Data(protocols.Client, ask, 1)
		c.Data(protocols.Server, answer, 2)
	}
	if n < 2 {
		b.Fatal("no events")
	}
}
