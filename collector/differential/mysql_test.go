//go:build linux

package differential

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"tidegate/pipeline"
)

const mysqlPort = 3306

// generalLogLine is the beginning of an entry of MariaDB's general log: an optional time, the connection's id and
// the command. A statement may go on in the next lines.
var generalLogLine = regexp.MustCompile(`(?m)^(?:\d{6} [ \d]\d:\d\d:\d\d)?\t+ *(\d+) ([A-Z][A-Za-z ]*)\t`)

// mariadbSubject is MariaDB. Its general log names connections by an id that the greeting contains.
func mariadbSubject() *subject {
	var mu sync.Mutex
	clients := map[uint64]clientKey{} // by the id of the connection
	return &subject{
		name: "mariadb", ports: []int{mysqlPort}, share: 3, same: sameStatement,
		start: func(l *lab) {
			data := filepath.Join(l.dir, "mysql")
			install := exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+data,
				"--auth-root-authentication-method=normal", "--skip-test-db", "--user=root")
			if out, err := install.CombinedOutput(); err != nil {
				l.t.Fatalf("mariadb-install-db: %v: %s", err, out)
			}
			l.start("mariadb.out", "mariadbd", "--no-defaults", "--datadir="+data, "--skip-grant-tables", "--user=root",
				"--bind-address="+strings.Join(hosts[:], ","), fmt.Sprint("--port=", mysqlPort), "--socket=s", // in the data folder: the path of a socket is short
				"--pid-file="+filepath.Join(l.dir, "pid"), "--general-log", "--general-log-file="+filepath.Join(l.dir, "general.log"),
				"--max-connections=500", "--max-allowed-packet=64M")
			l.waitTCP(mysqlPort)
		},
		converse: func(random *rand.Rand, host, marker string) (conversation, error) {
			c, id, err := converseMySQL(random, host, marker)
			mu.Lock()
			clients[id] = c.client
			mu.Unlock()
			return c, err
		},
		log: func(l *lab) map[clientKey][]executed {
			text := l.read("general.log")
			places := generalLogLine.FindAllSubmatchIndex(text, -1)
			logged := map[clientKey][]executed{}
			for i, place := range places {
				end := len(text)
				if i+1 < len(places) {
					end = places[i+1][0]
				}
				if command := string(text[place[4]:place[5]]); command != "Query" && command != "Prepare" {
					continue
				}
				id, _ := strconv.ParseUint(string(text[place[2]:place[3]]), 10, 64)
				statement := strings.TrimSuffix(string(text[place[1]:end]), "\n")
				if client, ok := clients[id]; ok {
					// Of several statements in one command the log has the whole text, then each one behind the first.
					if before := logged[client]; len(before) > 0 && isLaterStatement(before[len(before)-1].text, statement) {
						continue
					}
					logged[client] = append(logged[client], executed{text: statement})
				}
			}
			return logged
		},
	}
}

// isLaterStatement reports whether statement is one of text behind its first ;.
func isLaterStatement(text, statement string) bool {
	_, rest, several := strings.Cut(text, ";")
	return several && statement != "" && strings.Contains(rest, statement)
}

// markerText finds the marker of a statement.
var markerText = regexp.MustCompile(`m\d+x\d+q`)

// sameStatement compares markers, and whole texts where the statement has no comment: an event leaves them out.
func sameStatement(e observed, logged executed) bool {
	if e.dataset != pipeline.Dataset_MYSQL {
		return false
	}
	if strings.Contains(logged.text, "*/") || strings.Contains(logged.text, "-- ") || saysWhatWasCut(e) {
		marker := markerText.FindString(logged.text)
		return marker != "" && strings.Contains(e.text, marker)
	}
	// The log leaves out a ; at the end of several statements.
	squeeze := func(text string) string { return strings.TrimSuffix(strings.Join(strings.Fields(text), " "), ";") }
	return squeeze(e.text) == squeeze(logged.text)
}

// converseMySQL logs in and sends statements. It returns the id of the connection too.
func converseMySQL(random *rand.Rand, host, marker string) (c conversation, id uint64, err error) {
	tcp, local, err := dial(host, mysqlPort)
	if err != nil {
		return conversation{}, 0, err
	}
	defer func() { _ = tcp.Close() }()
	c.client = local
	compressed := chance(random, 5)
	if id, err = logIn(tcp, compressed); err != nil {
		return c, id, err
	}

	conn := net.Conn(tcp)
	var forms []string
	if compressed {
		conn, forms = &compressedConn{Conn: tcp, random: random}, []string{"compressed"}
	}
	if !compressed && chance(random, 20) {
		count := pick(random, 1, 20, 120)
		forms = append(forms, fmt.Sprint(count, " unknown commands"))
		for range count {
			packet := mysqlPacket(0, []byte{0x7f})
			c.written = append(c.written, packet...)
			if _, err := conn.Write(packet); err != nil || readMySQLReply(conn) != nil {
				return c, id, err
			}
		}
	}
	for i := range pick(random, 1, 3, 6) {
		command, form := mysqlCommand(random, fmt.Sprintf("%s%dq", marker, i))
		packet := mysqlPacket(0, command)
		if compressed && len(packet) >= 1<<24 {
			continue // more than a frame holds
		}
		c.written = append(c.written, packet...)
		name := "whole"
		if compressed {
			_, err = conn.Write(packet)
		} else {
			name, err = writeSegments(conn, random, packet)
		}
		forms = append(forms, form, name)
		c.form = strings.Join(forms, ", ")
		if err == nil {
			err = readMySQLReply(conn)
		}
		if err != nil {
			return c, id, err
		}
	}
	_, err = conn.Write(mysqlPacket(0, []byte{1})) // COM_QUIT
	return c, id, err
}

// mysqlCommand returns COM_QUERY or COM_STMT_PREPARE with a statement that contains marker.
func mysqlCommand(random *rand.Rand, marker string) ([]byte, string) {
	statement, form := "", ""
	switch random.IntN(10) {
	case 7:
		statement, form = "SELECT 1; SELECT '"+marker+"'"+pick(random, "", ";", "; SELECT 3"), "several statements"
	case 8:
		if chance(random, 6) {
			// Longer than one packet of the protocol: 16 MiB less a byte.
			statement, form = "SELECT '"+marker+"' /* "+strings.Repeat("c", 1<<24)+" */", "two packets"
			break
		}
		fallthrough
	case 0:
		statement, form = "/* "+strings.Repeat("c", pick(random, 10, 5000, 9000))+" */ SELECT '"+marker+"'", "comment in front"
	case 1:
		statement, form = "SELECT '"+strings.Repeat("p", pick(random, 3000, 5000, 20_000))+"', '"+marker+"'", "padded"
	case 2:
		statement, form = "  \n\t SELECT\n'"+marker+"'", "white space"
	case 3:
		statement, form = "SELECT /*!40001 SQL_NO_CACHE */ '"+marker+"'", "executable comment"
	case 4:
		statement, form = "SELEC '"+marker+"'", "syntax error"
	case 5:
		statement, form = "SELECT 1 UNION SELECT '"+marker+"' -- comment", "comment behind"
	case 6:
		statement, form = "SELECT '"+marker+"' # comment", "hash"
	default:
		statement, form = "SELECT '"+marker+"'", "plain"
	}
	if chance(random, 15) && form != "syntax error" && form != "several statements" && form != "two packets" {
		return append([]byte{0x16}, statement...), form + " prepared"
	}
	return append([]byte{0x03}, statement...), form
}

// mysqlPacket returns payload in packets: one of 16 MiB less a byte is followed by another one.
func mysqlPacket(sequence byte, payload []byte) (packets []byte) {
	const most = 1<<24 - 1
	for {
		size := min(len(payload), most)
		packets = append(packets, byte(size), byte(size>>8), byte(size>>16), sequence)
		packets = append(packets, payload[:size]...)
		if payload = payload[size:]; size < most {
			return packets
		}
		sequence++
	}
}

// A compressedConn carries packets in the frames of the compressed protocol. Each command is one Write.
type compressedConn struct {
	net.Conn
	random *rand.Rand
	unread bytes.Buffer
}

// Write sends data in one frame, of zlib or, as short ones are, as it is.
func (c *compressedConn) Write(data []byte) (int, error) {
	body, size := data, 0
	if chance(c.random, 70) {
		var out bytes.Buffer
		writer := zlib.NewWriter(&out)
		_, _ = writer.Write(data)
		_ = writer.Close()
		body, size = out.Bytes(), len(data)
	}
	frame := append(mysqlPacket(0, body)[:4:4], byte(size), byte(size>>8), byte(size>>16))
	_, err := c.Conn.Write(append(frame, body...))
	return len(data), err
}

// Read returns bytes of the packets in the frames of the server.
func (c *compressedConn) Read(data []byte) (int, error) {
	for c.unread.Len() == 0 {
		var head [7]byte
		if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
			return 0, err
		}
		body := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
		if _, err := io.ReadFull(c.Conn, body); err != nil {
			return 0, err
		}
		if head[4] == 0 && head[5] == 0 && head[6] == 0 {
			c.unread.Write(body)
			continue
		}
		reader, err := zlib.NewReader(bytes.NewReader(body))
		if err == nil {
			_, err = c.unread.ReadFrom(reader)
		}
		if err != nil {
			return 0, err
		}
	}
	return c.unread.Read(data)
}

// readMySQLPacket returns the payload of the next packet.
func readMySQLPacket(conn net.Conn) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	payload := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	_, err := io.ReadFull(conn, payload)
	return payload, err
}

// readMySQLReply reads the replies to a command, one for each of its statements.
func readMySQLReply(conn net.Conn) error {
	for {
		if more, err := readMySQLResult(conn); err != nil || !more {
			return err
		}
	}
}

// moreResults is the flag of the server's status that says that the result of another statement follows.
const moreResults = 8

// readMySQLResult reads the reply to a statement: OK, an error, a result set of text, or that of COM_STMT_PREPARE
// for a statement without parameters.
func readMySQLResult(conn net.Conn) (more bool, err error) {
	first, err := readMySQLPacket(conn)
	if err != nil || len(first) == 0 {
		return false, errors.Join(err, io.ErrUnexpectedEOF)
	}
	ends := 2 // EOF packets: behind the columns and behind the rows
	switch {
	case first[0] == 0xff:
		return false, nil
	case first[0] == 0 && len(first) == 12: // COM_STMT_PREPARE: id, columns, parameters, warnings
		if binary.LittleEndian.Uint16(first[5:]) == 0 {
			return false, nil
		}
		ends = 1
	case first[0] == 0:
		return len(first) > 3 && first[3]&moreResults != 0, nil
	}
	for ends > 0 {
		packet, err := readMySQLPacket(conn)
		if err != nil {
			return false, err
		}
		if len(packet) > 4 && packet[0] == 0xfe && len(packet) < 9 {
			ends--
			more = packet[3]&moreResults != 0
		}
	}
	return more, nil
}

// logIn reads the greeting and sends the login of a user without a password. It returns the connection's id.
func logIn(conn net.Conn, compressed bool) (id uint64, err error) {
	greeting, err := readMySQLPacket(conn)
	if err != nil {
		return 0, err
	}
	at := bytes.IndexByte(greeting, 0)
	if at < 0 || len(greeting) < at+5 || greeting[0] != 10 {
		return 0, fmt.Errorf("greeting %q", greeting)
	}
	id = uint64(binary.LittleEndian.Uint32(greeting[at+1:]))
	const protocol41, secureConnection, severalStatements, severalResults = 1 << 9, 1 << 15, 1 << 16, 1 << 17
	capabilities := uint32(protocol41 | secureConnection | severalStatements | severalResults | 1)
	if compressed {
		capabilities |= 1 << 5
	}
	login := binary.LittleEndian.AppendUint32(nil, capabilities)
	login = binary.LittleEndian.AppendUint32(login, 64<<20)
	login = append(append(login, 33), make([]byte, 23)...)
	login = append(login, "root\x00\x00"...)
	if _, err := conn.Write(mysqlPacket(1, login)); err != nil {
		return id, err
	}
	reply, err := readMySQLPacket(conn)
	if err == nil && (len(reply) == 0 || reply[0] != 0) {
		err = fmt.Errorf("login: %q", reply)
	}
	return id, err
}
