package mysql

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// TestDialoguesMatchTheirGoldens: every form of login, command and reply, with all fields of their events.
func TestDialoguesMatchTheirGoldens(t *testing.T) {
	const old = clientProtocol41 | clientConnectWithDB // neither of the lengths of authentication data
	const eofs = modern &^ clientDeprecateEOF
	fine := okReply(1, 0, 0, 0, 2, 0)
	ask := func(sql string) protocoltest.Step { return fromClient(query(sql)) }
	answer := func(packets ...string) protocoltest.Step { return fromServer(strings.Join(packets, "")) }
	next := []protocoltest.Step{ask("SELECT 1"), answer(fine)}
	var dialogues []protocoltest.Conversation
	add := func(name string, steps ...protocoltest.Step) {
		dialogues = append(dialogues, protocoltest.Conversation{Name: name, Port: 3306, Steps: append(steps, next...)})
	}
	id := le32(5)

	// Logins. Those before MySQL 4.1 have capabilities of two bytes, and the largest packet in three.
	login := func(server, client uint32, packet string) []protocoltest.Step {
		return []protocoltest.Step{fromServer(greeting("8.0.36", server)), fromClient(pkt(1, le32(client)+le32(1<<24)+"\x2d"+strings.Repeat("\x00", 23)+packet)), fromServer(okReply(2, 0, 0, 0, 2, 0))}
	}
	add("login", session(modern)...)
	add("login with authentication data up to a NUL", login(old, old, "shop\x00secret\x00orders\x00")...)
	add("login with a length of authentication data", login(old|clientSecure, old|clientSecure, "shop\x00\x06secretorders\x00")...)
	add("login with a long length of authentication data", login(old|clientAuthLenEnc, old|clientAuthLenEnc, "shop\x00\xfc\x06\x00secretorders\x00")...)
	add("login without a database", login(old&^clientConnectWithDB, old&^clientConnectWithDB, "shop\x00secret\x00orders\x00")...)
	row := func(seq byte) string { return pkt(seq, "\x01x") }
	rows := []protocoltest.Step{ask("SELECT a FROM t"), answer(pkt(1, "\x01"), pkt(2, column), row(3), row(4), okReply(5, 0xfe, 0, 0, 2, 0))}
	eofRows := []protocoltest.Step{ask("SELECT a FROM t"), answer(pkt(1, "\x01"), pkt(2, column), eofReply(3, 2), row(4), row(5), eofReply(6, 2))}
	add("login with more capabilities than the server has", append(login(old, modern, "shop\x00\x06secretorders\x00"), eofRows...)...)
	add("login with fewer capabilities than the server has", append(login(modern, old, "shop\x00secret\x00orders\x00"), eofRows...)...)
	add("login of capabilities only", fromServer(greeting("8.0.36", modern)), fromClient(pkt(1, le32(modern)+le32(1<<24)+"\x2d"+strings.Repeat("\x00", 23))), fromServer(errorReply(2, 1043, "08S01", "Bad handshake")))
	add("login that has asked for TLS", fromServer(greeting("8.0.36", modern|clientSSL)), fromClient(loginPacket(modern|clientSSL, "shop", "orders")), fromServer(okReply(2, 0, 0, 0, 2, 0)))
	add("login of an old client", fromServer(greeting("4.0.1", old)), fromClient(pkt(1, "\x85\x24\x00\x00\x01shop\x00secret")), fromServer(okReply(2, 0, 0, 0, 2, 0)))
	add("login that is refused", fromServer(greeting("8.0.36", modern)), fromClient(loginPacket(modern, "shop", "orders")), fromServer(errorReply(2, 1045, "28000", "Access denied")))
	add("login with more data", fromServer(greeting("8.0.36", modern)), fromClient(loginPacket(modern, "shop", "orders")), fromServer(pkt(2, "\x01\x04")),
		fromClient(pkt(3, "secret\x00")), fromServer(okReply(4, 0, 0, 0, 2, 0)))
	add("login without a greeting", append([]protocoltest.Step{fromClient(loginPacket(modern, "shop", "orders")), fromServer(okReply(2, 0, 0, 0, 2, 0))}, rows...)...)
	add("login without an answer", fromServer(greeting("8.0.36", modern)), fromClient(loginPacket(modern, "shop", "orders")))
	add("request of TLS", fromServer(greeting("8.0.36", modern|clientSSL)), fromClient(pkt(1, le32(modern|clientSSL)+le32(1<<24)+"\x2d"+strings.Repeat("\x00", 23))))
	add("request of TLS that the server does not have", fromServer(greeting("8.0.36", modern)), fromClient(pkt(1, le32(modern|clientSSL)+le32(1<<24)+"\x2d"+strings.Repeat("\x00", 23))))
	add("compression", session(modern|clientCompress)...)
	add("compression by zstd", session(modern|clientZstd)...)
	add("too many connections", fromServer(errorReply(0, 1040, "08004", "Too many connections")))
	add("a command before the login", fromServer(greeting("8.0.36", modern)))
	add("an answer before the login", fromServer(greeting("8.0.36", modern)+fine), fromClient(loginPacket(modern, "shop", "orders")), fromServer(okReply(2, 0, 0, 0, 2, 0)))
	add("an error before the login", fromServer(greeting("8.0.36", modern)), fromServer(errorReply(1, 1158, "08S01", "Got timeout")))
	add("the roles are exchanged", fromClient(greeting("8.0.36", modern)), fromServer(loginPacket(modern, "shop", "orders")), fromClient(okReply(2, 0, 0, 0, 2, 0)))

	// A change of user, and of the database.
	user := func(caps uint32, packet, reply string) []protocoltest.Step {
		return session(caps, fromClient(pkt(0, "\x16SELECT ?")), answer(pkt(1, "\x00"+id+"\x00\x00\x00\x00\x00\x00\x00")), fromClient(pkt(0, "\x11"+packet)), answer(reply),
			fromClient(pkt(0, "\x17"+id+"\x00\x01\x00\x00\x00")), answer(fine))
	}
	add("change of user", user(modern, "root\x00\x06secretother\x00", fine)...)
	add("change of user with authentication data up to a NUL", user(modern&^clientSecure, "root\x00secret\x00other\x00", fine)...)
	add("change of user that is refused", user(modern, "root\x00\x06secretother\x00", errorReply(1, 1045, "28000", "Access denied"))...)
	add("change of user where the login is unknown", fromClient(query("SELECT 2")), answer(fine), fromClient(pkt(0, "\x11root\x00\x06secretother\x00")), answer(fine))
	add("changes of the database", session(modern, fromClient(pkt(0, "\x02other")), answer(fine), ask("USE `third`"), answer(fine), ask("use fourth"), answer(errorReply(1, 1049, "42000", "Unknown database")),
		ask("SELECT 2"), answer(pkt(1, "\x00\x00\x00\x02\x40\x00\x00\x00\x0a\x02\x01x\x01\x05\x04last")))...)
	add("reset of the connection", session(modern, fromClient(pkt(0, "\x16SELECT ?")), answer(pkt(1, "\x00"+id+"\x00\x00\x00\x00\x00\x00\x00")), fromClient(pkt(0, "\x1f")), answer(fine),
		fromClient(pkt(0, "\x17"+id+"\x00\x01\x00\x00\x00")), answer(fine))...)

	// Replies.
	add("rows", session(modern, ask("SELECT a FROM t"), answer(pkt(1, "\x02"), pkt(2, column), pkt(3, column), row(4), row(5), okReply(6, 0xfe, 0, 0, 2, 3)))...)
	add("rows behind an EOF", session(eofs, eofRows...)...)
	add("a row in two packets", session(modern, ask("SELECT a FROM t"), answer(pkt(1, "\x01"), pkt(2, column), "\xff\xff\xff\x03\xfe"+strings.Repeat("x", 9000)), protocoltest.Step{Dir: protocols.Server, Gap: maxPacket - 9001},
		answer(pkt(4, "\xfexx"), row(5), okReply(6, 0xfe, 0, 0, 2, 0)))...)
	add("commands that are not answered", session(modern, fromClient(strings.Repeat(pkt(0, "\x0e"), maxWaiting+3)), answer(fine, fine))...)
	add("rows without definitions", session(modern, ask("SELECT a FROM t"), answer(pkt(1, "\x01\x00"), row(2), row(3), okReply(4, 0xfe, 0, 0, 2, 0)))...)
	add("no rows of no columns", session(modern, ask("SELECT a FROM t"), answer(pkt(1, "\x00\x00\x00\x02\x00\x00\x00")))...)
	add("rows of which the login is unknown", ask("SELECT a FROM t"), answer(pkt(1, "\x01"), pkt(2, column), eofReply(3, 2), row(4), eofReply(5, 2)), ask("SELECT b FROM t"),
		answer(pkt(1, "\x01"), pkt(2, column), eofReply(3, 2), row(4), eofReply(5, 2)))
	add("rows of which the login is unknown, without an EOF", ask("SELECT a FROM t"), answer(pkt(1, "\x01"), pkt(2, column), row(3), okReply(4, 0xfe, 0, 0, 2, 0)))
	add("several results", session(modern, ask("CALL p()"), answer(pkt(1, "\x01"), pkt(2, column), row(3), okReply(4, 0xfe, 0, 0, 2|statusMoreResults, 1), okReply(5, 0, 3, 7, 2|statusMoreResults, 1),
		pkt(6, "\x01"), pkt(7, column), row(8), okReply(9, 0xfe, 0, 0, 2, 0)))...)
	add("a result with an error", session(modern, ask("SELECT a FROM t"), answer(pkt(1, "\x01"), pkt(2, column), row(3), errorReply(4, 1317, "70100", "Query execution was interrupted")))...)
	add("an error that quotes a secret", session(modern, ask("SET PASSWORD = 'hunter2' wrong"), answer(errorReply(1, 1064, "42000", "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near 'wrong' at line 1")))...)
	add("an error without a state", session(modern, ask("SELECT a"), answer(pkt(1, "\xff\x69\x04oops")))...)
	add("an error that no command waits for", session(modern, answer(errorReply(1, 4031, "HY000", "The client was disconnected by the server")))...)
	add("progress", session(modern, ask("ALTER TABLE t"), answer(pkt(1, "\xff\xff\xff\x01\x01\x02\x00\x00\x00\x04copy"), pkt(2, "\xff\xff\xff"), okReply(3, 0, 5, 0, 2, 0)))...)
	add("a file", session(modern, ask("LOAD DATA LOCAL INFILE 'x' INTO TABLE t"), answer(pkt(1, "\xfbx")), fromClient(pkt(2, "a,b\n")), fromClient(pkt(3, "c,d\n")+pkt(4, "")), answer(okReply(5, 0, 2, 0, 2, 0)))...)
	add("an empty packet of the server", session(modern, ask("SELECT a"), answer(pkt(1, ""), okReply(2, 0, 0, 0, 2, 0)))...)

	// Prepared statements.
	prepared := "\x00" + id + "\x01\x00\x01\x00\x00\x02\x00"
	execute := fromClient(pkt(0, "\x17"+id+"\x00\x01\x00\x00\x00"))
	add("a prepared statement", session(modern, fromClient(pkt(0, "\x16SELECT a FROM t WHERE b = ?")), answer(pkt(1, prepared), pkt(2, column), pkt(3, column)), execute,
		answer(pkt(1, "\x01"), pkt(2, column), pkt(3, "\x00\x00\x01x"), okReply(4, 0xfe, 0, 0, 2, 0)), fromClient(pkt(0, "\x1a"+id)), answer(fine), fromClient(pkt(0, "\x19"+id)), execute, answer(errorReply(1, 1243, "HY000", "Unknown")))...)
	add("a prepared statement behind EOFs", session(eofs, fromClient(pkt(0, "\x16SELECT a FROM t WHERE b = ?")), answer(pkt(1, prepared), pkt(2, column), eofReply(3, 2), pkt(4, column), eofReply(5, 2)), execute,
		answer(pkt(1, "\x01"), pkt(2, column), eofReply(3, 2|statusCursorExists)), fromClient(pkt(0, "\x1c"+id+"\x01\x00\x00\x00")), answer(pkt(1, "\x00\x00\x01x"), eofReply(2, 2)))...)
	add("a prepared statement of which the login is unknown", fromClient(pkt(0, "\x16SELECT a FROM t WHERE b = ?")), answer(pkt(1, prepared), pkt(2, column), eofReply(3, 2), pkt(4, column), eofReply(5, 2)), execute, answer(fine))
	add("a prepared statement without definitions", session(modern, fromClient(pkt(0, "\x16SELECT a FROM t WHERE b = ?")), answer(pkt(1, prepared+"\x00")), execute, answer(fine))...)
	add("a prepared statement of MariaDB", session(modern, fromClient(pkt(0, "\x16SET @a = ?")+pkt(0, "\x17\xff\xff\xff\xff\x00\x01\x00\x00\x00")), answer(pkt(1, "\x00"+id+"\x00\x00\x00\x00\x00\x00\x00"), fine))...)
	add("a prepared statement that is wrong", session(modern, fromClient(pkt(0, "\x16SELECT (")), answer(errorReply(1, 1064, "42000", "You have an error")), execute, answer(fine))...)
	add("long data", session(modern, fromClient(pkt(0, "\x18"+id+"\x00\x00blob")+pkt(0, "\xfa"+id+"\x80\x00")), answer(fine))...)

	// Other commands.
	for _, command := range []string{"\x05db", "\x06db", "\x07\x01", "\x08", "\x0a", "\x0c\x01\x00\x00\x00", "\x0d", "\x0e", "\x1b\x00\x00", "\x04t\x00", "\x13\x01a\x01b"} {
		add(fmt.Sprintf("command %#x", command[0]), session(modern, fromClient(pkt(0, command)), answer(fine))...)
	}
	add("statistics", session(modern, fromClient(pkt(0, "\x09")), answer(pkt(1, "Uptime: 1  Threads: 2")))...)
	add("fields of a table", session(modern, fromClient(pkt(0, "\x04t\x00")), answer(pkt(1, column), pkt(2, column), eofReply(3, 2)))...)
	add("replication", session(modern, fromClient(pkt(0, "\x15"+strings.Repeat("\x01", 17))), answer(fine), fromClient(pkt(0, "\x12"+strings.Repeat("\x01", 10))), answer(pkt(1, "\x00events")))...)
	add("an unknown command", session(modern, fromClient(pkt(0, "\x77\x01")), answer(errorReply(1, 1047, "08S01", "Unknown command")))...)
	add("a command that is too long", session(modern, fromClient(pkt(0, "\x0e\x01")), answer(fine))...)
	add("an empty command", session(modern, fromClient(pkt(0, "")), answer(errorReply(1, 1047, "08S01", "Unknown command")))...)
	add("the end", session(modern, fromClient(pkt(0, "\x01")))...)
	add("attributes", session(modern|clientQueryAttrs, fromClient(pkt(0, "\x03\x01\x01\x00\x01\x0f\x00\x01a\x02xySELECT 2")), answer(fine), fromClient(pkt(0, "\x03\x00\x01SELECT 3")), answer(fine))...)
	add("attributes of which the login is unknown", fromClient(pkt(0, "\x03\x00\x01SELECT 3")), answer(fine))

	// Long statements: comments are left out, and of the rest the head and the tail are kept.
	values := strings.Repeat("(1,'value'),", 1000)
	add("a statement that is cut", session(modern, ask("INSERT INTO t VALUES "+values[:5000]+"(9,'end') -- x"), answer(fine))...)
	add("a long statement", session(modern, ask("INSERT INTO t VALUES "+values+"(9,'end') ON DUPLICATE KEY UPDATE a = 'last'"), answer(fine))...)
	add("a long statement in two packets", session(modern, fromClient(query("INSERT INTO t VALUES " + values)[:6000]), fromClient(query("INSERT INTO t VALUES " + values)[6000:]), answer(fine))...)
	add("a long statement with a comment", session(modern, ask("SELECT /* "+strings.Repeat("x", 9000)+" */ a FROM t -- "+strings.Repeat("y", 3000)), answer(fine))...)
	add("a long statement with a secret", session(modern, ask("SELECT '"+strings.Repeat("x", 9000)+"', 'a' FROM t; SET PASSWORD = 'hunter2'"), answer(errorReply(1, 1064, "42000", "You have an error in your SQL syntax; check the manual that corresponds to your MySQL server version for the right syntax to use near 'SET PASSWORD = 'hunter2'' at line 1")))...)
	add("a long statement that is prepared", session(modern, fromClient(pkt(0, "\x16INSERT INTO t VALUES "+values+"(?)")), answer(pkt(1, "\x00"+id+"\x00\x00\x00\x00\x00\x00\x00")), execute, answer(fine))...)
	add("a long statement that is prepared by MariaDB", session(modern, fromClient(pkt(0, "\x16INSERT INTO t VALUES "+values+"(?)")+pkt(0, "\x17\xff\xff\xff\xff\x00\x01\x00\x00\x00")), answer(pkt(1, "\x00"+id+"\x00\x00\x00\x00\x00\x00\x00"), fine))...)
	add("a long statement behind a comment", session(modern, ask("INSERT INTO t /* "+strings.Repeat("x", 9000)+" */ VALUES "+values[:3500]+"(9,'end')"), answer(fine))...)
	add("a statement with a comment that is cut", session(modern, ask("SELECT /* "+strings.Repeat("x", 5000)+" */ a FROM t"), answer(fine))...)
	add("a long statement that is refused before its end", session(modern, fromClient(query("INSERT INTO t VALUES " + values)[:9000]), answer(errorReply(1, 1153, "08S01", "Got a packet bigger than 'max_allowed_packet'")),
		fromClient(query("INSERT INTO t VALUES " + values)[9000:]))...)
	add("a statement of two packets", session(modern, fromClient("\xff\xff\xff\x00\x03INSERT INTO t VALUES "+values), protocoltest.Step{Gap: maxPacket - len("\x03INSERT INTO t VALUES "+values)},
		fromClient(pkt(1, "(9,'end')")), answer(okReply(2, 0, 0, 0, 2, 0)))...)
	add("a statement of two packets, the second empty", session(modern, fromClient("\xff\xff\xff\x00\x03INSERT INTO t VALUES "+values), protocoltest.Step{Gap: maxPacket - len("\x03INSERT INTO t VALUES "+values)},
		fromClient(pkt(1, "")), answer(okReply(2, 0, 0, 0, 2, 0)))...)
	unfinished := session(modern, fromClient(query("INSERT INTO t VALUES " + values)[:9000]))
	dialogues = append(dialogues, protocoltest.Conversation{Name: "a long statement that does not end", Port: 3306, Steps: unfinished})
	protocoltest.CheckDialogueGoldens(t, list, dialogues, 3) // behind the login
}
