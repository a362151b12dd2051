//go:build linux

package differential

import (
	"bytes"
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
	ports := map[uint64]uint32{} // by the id of the connection
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
				"--bind-address=127.0.0.1", fmt.Sprint("--port=", mysqlPort), "--socket=s", // in the data folder: the path of a socket is short
				"--pid-file="+filepath.Join(l.dir, "pid"), "--general-log", "--general-log-file="+filepath.Join(l.dir, "general.log"),
				"--max-connections=500", "--max-allowed-packet=64M")
			l.waitTCP(mysqlPort)
		},
		converse: func(random *rand.Rand, marker string) (conversation, error) {
			c, id, err := converseMySQL(random, marker)
			mu.Lock()
			ports[id] = c.port
			mu.Unlock()
			return c, err
		},
		log: func(l *lab) map[uint32][]executed {
			text := l.read("general.log")
			places := generalLogLine.FindAllSubmatchIndex(text, -1)
			logged := map[uint32][]executed{}
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
				if port, ok := ports[id]; ok {
					logged[port] = append(logged[port], executed{text: statement})
				}
			}
			return logged
		},
	}
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
	squeeze := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	return squeeze(e.text) == squeeze(logged.text)
}

// converseMySQL logs in and sends statements. It returns the id of the connection too.
func converseMySQL(random *rand.Rand, marker string) (c conversation, id uint64, err error) {
	conn, local, err := dial(mysqlPort)
	if err != nil {
		return conversation{}, 0, err
	}
	defer func() { _ = conn.Close() }()
	c.port = local
	if id, err = logIn(conn); err != nil {
		return c, id, err
	}

	var forms []string
	if chance(random, 20) {
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
		c.written = append(c.written, packet...)
		name, err := writeSegments(conn, random, packet)
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
	switch random.IntN(9) {
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
	if chance(random, 15) && form != "syntax error" {
		return append([]byte{0x16}, statement...), form + " prepared"
	}
	return append([]byte{0x03}, statement...), form
}

func mysqlPacket(sequence byte, payload []byte) []byte {
	size := len(payload)
	return append([]byte{byte(size), byte(size >> 8), byte(size >> 16), sequence}, payload...)
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

// readMySQLReply reads the reply to a command: OK, an error, a result set of text, or that of COM_STMT_PREPARE
// for a statement without parameters.
func readMySQLReply(conn net.Conn) error {
	first, err := readMySQLPacket(conn)
	if err != nil || len(first) == 0 {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	ends := 2 // EOF packets: behind the columns and behind the rows
	switch {
	case first[0] == 0xff:
		return nil
	case first[0] == 0 && len(first) == 12: // COM_STMT_PREPARE: id, columns, parameters, warnings
		if binary.LittleEndian.Uint16(first[5:]) == 0 {
			return nil
		}
		ends = 1
	case first[0] == 0:
		return nil
	}
	for ends > 0 {
		packet, err := readMySQLPacket(conn)
		if err != nil {
			return err
		}
		if len(packet) > 0 && packet[0] == 0xfe && len(packet) < 9 {
			ends--
		}
	}
	return nil
}

// logIn reads the greeting and sends the login of a user without a password. It returns the connection's id.
func logIn(conn net.Conn) (id uint64, err error) {
	greeting, err := readMySQLPacket(conn)
	if err != nil {
		return 0, err
	}
	at := bytes.IndexByte(greeting, 0)
	if at < 0 || len(greeting) < at+5 || greeting[0] != 10 {
		return 0, fmt.Errorf("greeting %q", greeting)
	}
	id = uint64(binary.LittleEndian.Uint32(greeting[at+1:]))
	const protocol41, secureConnection = 1 << 9, 1 << 15
	login := binary.LittleEndian.AppendUint32(nil, protocol41|secureConnection|1)
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
