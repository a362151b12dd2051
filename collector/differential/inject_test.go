//go:build linux

package differential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// injectedSubject is nginx again. Between the requests of a connection, packets are injected that the kernel of the
// server refuses, so that they change nothing for it.
func injectedSubject() *subject {
	return &subject{
		name: "injected", ports: []int{nginxInjectPort}, share: 2, same: sameRequest,
		start:    func(*lab) {}, // nginxSubject starts it
		converse: converseInjected,
		log:      func(l *lab) map[clientKey][]executed { return accessLog(l, "access.log", nginxInjectPort) },
	}
}

// converseInjected sends requests one after the other, with injected packets in between.
func converseInjected(random *rand.Rand, host, marker string) (conversation, error) {
	conn, local, err := dial(host, nginxInjectPort)
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	c := conversation{client: local}
	var forms []string
	for i := range 3 {
		request := fmt.Sprintf("GET /%s%dq?padding HTTP/1.1\r\nHost: shop.example\r\n\r\n", marker, i)
		form := "nothing"
		if i > 0 {
			form, err = injectPacket(conn, random, host, request)
			if err != nil {
				return c, err
			}
			if chance(random, 20) {
				form += ", pause"
				time.Sleep(1200 * time.Millisecond)
			}
		}
		forms = append(forms, form)
		c.form = strings.Join(forms, "; ")
		c.written = append(c.written, request...)
		if chance(random, 40) {
			name, err := writeExtended(conn, random, host, request)
			c.form += ", request in " + name
			if err != nil {
				return c, err
			}
		} else if err := writeUrgent(conn, random, request); err != nil {
			return c, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		if err := readSome(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			// nginx stops reading at the urgent byte until it is woken again, here by the end of the connection.
			_ = conn.CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			return c, readSome(conn)
		} else if err != nil {
			return c, fmt.Errorf("after %s: %w", form, err)
		}
	}
	return c, nil
}

// writeExtended writes a request in packets with extension headers of IPv6, or one with options of IPv4. The
// kernel takes it for sent, so that it knows the answer.
func writeExtended(conn *net.TCPConn, random *rand.Rand, host, request string) (form string, err error) {
	sendNext, receiveNext, err := sequenceNumbers(conn)
	if err != nil {
		return "", err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return "", err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		const offWithoutProbe, sendQueue = -1, 2
		set := func(option, value int) {
			optErr = errors.Join(optErr, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value))
		}
		set(unix.TCP_REPAIR, 1)
		set(unix.TCP_REPAIR_QUEUE, sendQueue)
		_, writeErr := unix.Write(int(fd), []byte(request))
		optErr = errors.Join(optErr, writeErr)
		set(unix.TCP_REPAIR, offWithoutProbe)
	})
	if err := errors.Join(err, optErr); err != nil {
		return "", err
	}
	client := conn.LocalAddr().(*net.TCPAddr).Port
	data := segment{seq: sendNext, ack: receiveNext, flags: flagACK | flagPSH, payload: []byte(request)}
	encoded := data.encode(host, client, nginxInjectPort)
	if host == hosts[0] {
		options, form := ipOptions(random, false)
		return form, sendRaw(host, withOptions(ipPacket(host, unix.IPPROTO_TCP, encoded), options))
	}
	packets, form := extendedPackets(random, host, unix.IPPROTO_TCP, encoded, false)
	return form, sendRaw(host, packets...)
}

// writeUrgent writes a request. Sometimes a byte of urgent data stands in it, which the server does not read.
func writeUrgent(conn *net.TCPConn, random *rand.Rand, request string) error {
	if !chance(random, 30) {
		_, err := conn.Write([]byte(request))
		return err
	}
	at := 5 + random.IntN(10)
	if _, err := conn.Write([]byte(request[:at])); err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) { sendErr = unix.Sendto(int(fd), []byte("Z"), unix.MSG_OOB, nil) })
	if err := errors.Join(err, sendErr); err != nil {
		return err
	}
	_, err = conn.Write([]byte(request[at:]))
	return err
}

const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// injectPacket sends one packet that the receiver refuses, and returns its form.
func injectPacket(conn *net.TCPConn, random *rand.Rand, host, request string) (string, error) {
	sendNext, receiveNext, err := sequenceNumbers(conn)
	if err != nil {
		return "", err
	}
	stamp, err := timestamp(conn)
	if err != nil {
		return "", err
	}
	client, server := conn.LocalAddr().(*net.TCPAddr).Port, nginxInjectPort
	other := []byte(strings.Replace(request, "GET /", "PUT /", 1))
	segments := []struct {
		form     string
		from, to int
		segment  segment
	}{
		{"reset in the window", client, server, segment{seq: sendNext + 10, flags: flagRST}},
		{"reset with ACK in the window", client, server, segment{seq: sendNext + 1, ack: receiveNext, flags: flagRST | flagACK}},
		{"reset outside of the window", client, server, segment{seq: sendNext + 1<<30, flags: flagRST}},
		{"reset of the server in the window", server, client, segment{seq: receiveNext + 10, flags: flagRST}},
		{"SYN", client, server, segment{seq: sendNext + 100, flags: flagSYN}},
		{"SYN of the server", server, client, segment{seq: receiveNext + 7, ack: sendNext, flags: flagSYN | flagACK}},
		{"data with a wrong checksum", client, server, segment{seq: sendNext, ack: receiveNext, flags: flagACK | flagPSH, payload: other, wrongSum: true}},
		{"FIN outside of the window", client, server, segment{seq: sendNext - 1<<30, ack: receiveNext, flags: flagFIN | flagACK}},
		{"data with an old timestamp", client, server, segment{seq: sendNext, ack: receiveNext, flags: flagACK | flagPSH, payload: other, stamp: stamp - 1<<24}},
		{"data outside of the window", client, server, segment{seq: sendNext + 1<<29, ack: receiveNext, flags: flagACK, payload: other}},
		{"keep-alive probe with a byte", client, server, segment{seq: sendNext - 1, ack: receiveNext, flags: flagACK, payload: []byte("X")}},
		{"keep-alive probe of the server", server, client, segment{seq: receiveNext - 1, ack: sendNext, flags: flagACK, payload: []byte("X")}},
		{"acknowledgement of what was not sent", client, server, segment{seq: sendNext, ack: receiveNext + 1<<20, flags: flagACK}},
		{"closed window of the server", server, client, segment{seq: receiveNext - 1<<20, ack: sendNext, flags: flagACK}},
		{"data that was acknowledged", client, server, segment{seq: sendNext - uint32(len(other)), ack: receiveNext, flags: flagACK, payload: other}},
	}
	if host != hosts[0] && chance(random, 40) {
		data := segment{seq: sendNext, ack: receiveNext, flags: flagACK | flagPSH, payload: other}.encode(host, client, server)
		packets, form := extendedPackets(random, host, unix.IPPROTO_TCP, data, true)
		return "data behind " + form, sendRaw(host, packets...)
	}
	if host == hosts[0] && chance(random, 20) {
		data := segment{seq: sendNext, ack: receiveNext, flags: flagACK | flagPSH, payload: other}.encode(host, client, server)
		options, form := ipOptions(random, true)
		return "data behind " + form, sendRaw(host, withOptions(ipPacket(host, unix.IPPROTO_TCP, data), options))
	}
	chosen := segments[random.IntN(len(segments))]
	return chosen.form, sendRaw(host, ipPacket(host, unix.IPPROTO_TCP, chosen.segment.encode(host, chosen.from, chosen.to)))
}

// sequenceNumbers returns the next sequence numbers of both directions, by TCP_REPAIR.
func sequenceNumbers(conn *net.TCPConn) (sendNext, receiveNext uint32, err error) {
	const offWithoutProbe = -1
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var optErr error
	set := func(fd uintptr, option, value int) {
		if optErr == nil {
			optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value)
		}
	}
	get := func(fd uintptr) uint32 {
		value, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		optErr = errors.Join(optErr, err)
		return uint32(value)
	}
	err = raw.Control(func(fd uintptr) {
		const receiveQueue, sendQueue = 1, 2
		set(fd, unix.TCP_REPAIR, 1)
		set(fd, unix.TCP_REPAIR_QUEUE, sendQueue)
		sendNext = get(fd)
		set(fd, unix.TCP_REPAIR_QUEUE, receiveQueue)
		receiveNext = get(fd)
		set(fd, unix.TCP_REPAIR, offWithoutProbe)
	})
	return sendNext, receiveNext, errors.Join(err, optErr)
}

// timestamp returns the time that the client sends in its segments now.
func timestamp(conn *net.TCPConn) (stamp uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		var value int
		value, optErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
		stamp = uint32(value)
	})
	return stamp, errors.Join(err, optErr)
}

// A segment is a TCP segment between two ports of a host.
type segment struct {
	seq, ack uint32
	flags    byte
	payload  []byte
	wrongSum bool
	stamp    uint32 // the timestamp of its option, if it is not 0
}

// encode returns the segment.
func (s segment) encode(host string, from, to int) []byte {
	headLen := 20
	if s.stamp != 0 {
		headLen += 12
	}
	out := make([]byte, headLen, headLen+len(s.payload))
	out = append(out, s.payload...)
	binary.BigEndian.PutUint16(out, uint16(from))
	binary.BigEndian.PutUint16(out[2:], uint16(to))
	binary.BigEndian.PutUint32(out[4:], s.seq)
	binary.BigEndian.PutUint32(out[8:], s.ack)
	out[12], out[13] = byte(headLen/4<<4), s.flags
	if s.stamp != 0 {
		copy(out[20:], []byte{1, 1, 8, 10})
		binary.BigEndian.PutUint32(out[24:], s.stamp)
	}
	binary.BigEndian.PutUint16(out[14:], 512)
	sum := transportSum(host, unix.IPPROTO_TCP, out)
	if s.wrongSum {
		sum ^= 0x1234
	}
	binary.BigEndian.PutUint16(out[16:], sum)
	return out
}
