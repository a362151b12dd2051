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
	"syscall"
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
		log:      func(l *lab) map[uint32][]executed { return accessLog(l, "access.log", nginxInjectPort) },
	}
}

// converseInjected sends requests one after the other, with injected packets in between.
func converseInjected(random *rand.Rand, marker string) (conversation, error) {
	conn, local, err := dial(nginxInjectPort)
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	c := conversation{port: local}
	var forms []string
	for i := range 3 {
		request := fmt.Sprintf("GET /%s%dq?padding HTTP/1.1\r\nHost: shop.example\r\n\r\n", marker, i)
		form := "nothing"
		if i > 0 {
			form, err = injectPacket(conn, random, request)
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
		if err := writeUrgent(conn, random, request); err != nil {
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
func injectPacket(conn *net.TCPConn, random *rand.Rand, request string) (string, error) {
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
	chosen := segments[random.IntN(len(segments))]
	return chosen.form, sendRaw(chosen.segment.encode(chosen.from, chosen.to))
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

// A segment is a TCP segment between two ports of 127.0.0.1.
type segment struct {
	seq, ack uint32
	flags    byte
	payload  []byte
	wrongSum bool
	stamp    uint32 // the timestamp of its option, if it is not 0
}

// encode returns the segment with an IPv4 header.
func (s segment) encode(from, to int) []byte {
	const ipHead = 20
	tcpHead := 20
	if s.stamp != 0 {
		tcpHead += 12
	}
	out := make([]byte, ipHead+tcpHead, ipHead+tcpHead+len(s.payload))
	out = append(out, s.payload...)
	out[0], out[8], out[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	copy(out[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
	tcp := out[ipHead:]
	binary.BigEndian.PutUint16(tcp, uint16(from))
	binary.BigEndian.PutUint16(tcp[2:], uint16(to))
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[12], tcp[13] = byte(tcpHead/4<<4), s.flags
	if s.stamp != 0 {
		copy(tcp[20:], []byte{1, 1, 8, 10})
		binary.BigEndian.PutUint32(tcp[24:], s.stamp)
	}
	binary.BigEndian.PutUint16(tcp[14:], 512)

	sum := uint32(unix.IPPROTO_TCP) + uint32(len(tcp))
	for _, part := range [][]byte{out[12:20], tcp} {
		for i := 0; i < len(part); i += 2 {
			word := uint32(part[i]) << 8
			if i+1 < len(part) {
				word |= uint32(part[i+1])
			}
			sum += word
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	if s.wrongSum {
		sum ^= 0x1234
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	return out
}

// sendRaw sends a packet with its IP header.
func sendRaw(packet []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}
