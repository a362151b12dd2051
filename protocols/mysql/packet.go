package mysql

import "encoding/binary"

// maxPacket is the longest payload. A payload of this length continues in the next packet.
const maxPacket = 1<<24 - 1

// The capabilities that change the format of later packets.
const (
	clientConnectWithDB = 1 << 3
	clientCompress      = 1 << 5
	clientProtocol41    = 1 << 9
	clientSSL           = 1 << 11
	clientSecure        = 1 << 15
	clientAuthLenEnc    = 1 << 21
	clientSessionTrack  = 1 << 23
	clientDeprecateEOF  = 1 << 24
	clientZstd          = 1 << 26
	clientQueryAttrs    = 1 << 27
)

// The server status flags that the parser reads.
const (
	statusMoreResults  = 1 << 3
	statusCursorExists = 1 << 6
	statusStateChanged = 1 << 14
)

// The first byte of a server's packet.
const (
	okPacket     = 0x00
	infilePacket = 0xfb
	eofPacket    = 0xfe
	errPacket    = 0xff
)

// The commands with a treatment of their own.
const (
	comQuit         = 0x01
	comInitDB       = 0x02
	comQuery        = 0x03
	comFieldList    = 0x04
	comStatistics   = 0x09
	comChangeUser   = 0x11
	comBinlogDump   = 0x12
	comTableDump    = 0x13
	comStmtPrepare  = 0x16
	comStmtExecute  = 0x17
	comStmtLongData = 0x18
	comStmtClose    = 0x19
	comStmtReset    = 0x1a
	comStmtFetch    = 0x1c
	comBinlogGTID   = 0x1e
	comResetConn    = 0x1f
	comBulkExecute  = 0xfa
	comConnect      = 0x0b // the server's internal command for a login; a client never sends it
)

// A commandKind is the name of a command, and the form of its packets.
type commandKind struct {
	name     string
	min, max int  // bounds of the length of the payload; max 0: none
	text     bool // SQL follows
	noReply  bool // no reply comes
}

var commandKinds = [...]commandKind{
	comQuit:         {name: "COM_QUIT", min: 1, max: 1, noReply: true},
	comInitDB:       {name: "COM_INIT_DB", min: 2, max: 1024},
	comQuery:        {name: "COM_QUERY", min: 2, text: true},
	comFieldList:    {name: "COM_FIELD_LIST", min: 2, max: 1024},
	0x05:            {name: "COM_CREATE_DB", min: 2, max: 1024},
	0x06:            {name: "COM_DROP_DB", min: 2, max: 1024},
	0x07:            {name: "COM_REFRESH", min: 2, max: 2},
	0x08:            {name: "COM_SHUTDOWN", min: 1, max: 2},
	comStatistics:   {name: "COM_STATISTICS", min: 1, max: 1},
	0x0a:            {name: "COM_PROCESS_INFO", min: 1, max: 1},
	0x0c:            {name: "COM_PROCESS_KILL", min: 5, max: 5},
	0x0d:            {name: "COM_DEBUG", min: 1, max: 1},
	0x0e:            {name: "COM_PING", min: 1, max: 1},
	comChangeUser:   {name: "COM_CHANGE_USER", min: 3, max: 64 << 10},
	comBinlogDump:   {name: "COM_BINLOG_DUMP", min: 11, max: 1024},
	comTableDump:    {name: "COM_TABLE_DUMP", min: 3, max: 1024},
	0x15:            {name: "COM_REGISTER_SLAVE", min: 18, max: 1024},
	comStmtPrepare:  {name: "COM_STMT_PREPARE", min: 2, text: true},
	comStmtExecute:  {name: "COM_STMT_EXECUTE", min: 10},
	comStmtLongData: {name: "COM_STMT_SEND_LONG_DATA", min: 7, noReply: true},
	comStmtClose:    {name: "COM_STMT_CLOSE", min: 5, max: 5, noReply: true},
	comStmtReset:    {name: "COM_STMT_RESET", min: 5, max: 5},
	0x1b:            {name: "COM_SET_OPTION", min: 3, max: 3},
	comStmtFetch:    {name: "COM_STMT_FETCH", min: 9, max: 9},
	comBinlogGTID:   {name: "COM_BINLOG_DUMP_GTID", min: 11, max: 1 << 20},
	comResetConn:    {name: "COM_RESET_CONNECTION", min: 1, max: 1},
}

var bulkExecute = commandKind{name: "COM_STMT_BULK_EXECUTE", min: 7}

// kindOf returns the kind of the command with the first byte c. The name of an unknown command is empty.
func kindOf(c byte) *commandKind {
	if c == comBulkExecute {
		return &bulkExecute
	}
	if int(c) < len(commandKinds) {
		return &commandKinds[c]
	}
	return &commandKinds[0]
}

// payloadLength returns the length of the payload of the packet at the front of b.
func payloadLength(header []byte) int { return int(header[0]) | int(header[1])<<8 | int(header[2])<<16 }

// A payloadReader reads the fields of a payload. A read past the end sets bad and returns zero or nil.
type payloadReader struct {
	rest []byte
	bad  bool
}

// take reads n bytes.
func (r *payloadReader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.rest, r.bad = nil, true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *payloadReader) u8() byte {
	if raw := r.take(1); raw != nil {
		return raw[0]
	}
	return 0
}

func (r *payloadReader) u16() uint16 {
	if raw := r.take(2); raw != nil {
		return binary.LittleEndian.Uint16(raw)
	}
	return 0
}

func (r *payloadReader) u32() uint32 {
	if raw := r.take(4); raw != nil {
		return binary.LittleEndian.Uint32(raw)
	}
	return 0
}

// lenencInt reads a length-encoded integer.
func (r *payloadReader) lenencInt() uint64 {
	switch first := r.u8(); first {
	case 0xfc:
		return uint64(r.u16())
	case 0xfd:
		value := uint64(r.u16())
		return value | uint64(r.u8())<<16
	case 0xfe:
		value := uint64(r.u32())
		return value | uint64(r.u32())<<32
	case 0xfb, 0xff:
		r.bad = true
		return 0
	default:
		return uint64(first)
	}
}

// lenencString reads a length-encoded string.
func (r *payloadReader) lenencString() []byte { return r.take(r.lenencInt()) }

// nulString reads a string that ends with a NUL or with the payload.
func (r *payloadReader) nulString() []byte {
	for i, c := range r.rest {
		if c == 0 {
			text := r.rest[:i]
			r.rest = r.rest[i+1:]
			return text
		}
	}
	text := r.rest
	r.rest = nil
	return text
}
