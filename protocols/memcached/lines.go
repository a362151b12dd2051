package memcached

import (
	"bytes"
	"math"
	"strconv"
)

// commandFlags are properties of a command that decide how its reply is read.
type commandFlags uint8

const (
	hasData      commandFlags = 1 << iota // a data block follows the line
	retrieves                             // the reply has values
	noReply                               // no reply comes
	quiet                                 // a meta command with the flag q: a reply comes in some cases only
	endsQuiet                             // mn: its reply ends a quiet batch
	endsDialogue                          // watch: log lines follow the reply
)

// A command is a command line. Its slices alias the line.
type command struct {
	name       []byte // with the first word if that is a subcommand
	keys       []byte // the part of the line from the first key on, see nextKey
	oneKey     bool   // keys begins with the only key, and other words follow it
	flags      commandFlags
	valueBytes uint64 // of the data block
	distinct   bool   // no other text protocol has such a line
}

// A syntax describes the words of a command after its name.
type syntax struct {
	firstKey   int  // the word that is the first key, counted from 1; 0: none
	manyKeys   bool // every word from firstKey on is a key
	size       int  // the word that is the size of the data block; 0: none follows
	numbers    int  // the first of two words that are numbers, flags and time; 0: none
	cas        int  // the word that is the unique number of cas; 0: none
	min, max   int  // number of words, behind a key with noreply, or a word that the server ignores; max −1: any
	flags      commandFlags
	meta       bool // the words behind the key are flags
	subcommand bool // the first word belongs to the name
	distinct   bool
}

// commands has the commands of protocol.txt.
var commands = map[string]syntax{
	"set":     {firstKey: 1, size: 4, numbers: 2, min: 4, max: 5, distinct: true},
	"add":     {firstKey: 1, size: 4, numbers: 2, min: 4, max: 5, distinct: true},
	"replace": {firstKey: 1, size: 4, numbers: 2, min: 4, max: 5, distinct: true},
	"append":  {firstKey: 1, size: 4, numbers: 2, min: 4, max: 5, distinct: true},
	"prepend": {firstKey: 1, size: 4, numbers: 2, min: 4, max: 5, distinct: true},
	"cas":     {firstKey: 1, size: 4, numbers: 2, cas: 5, min: 5, max: 6, distinct: true},

	"get":  {firstKey: 1, manyKeys: true, min: 1, max: -1, flags: retrieves},
	"gets": {firstKey: 1, manyKeys: true, min: 1, max: -1, flags: retrieves, distinct: true},
	"gat":  {firstKey: 2, manyKeys: true, min: 2, max: -1, flags: retrieves, distinct: true},
	"gats": {firstKey: 2, manyKeys: true, min: 2, max: -1, flags: retrieves, distinct: true},

	"delete": {firstKey: 1, min: 1, max: 3},
	"incr":   {firstKey: 1, min: 2, max: 3},
	"decr":   {firstKey: 1, min: 2, max: 3},
	"touch":  {firstKey: 1, min: 2, max: 3},

	"stats":          {max: -1, subcommand: true},
	"flush_all":      {max: 2, distinct: true},
	"version":        {},
	"verbosity":      {max: 1, distinct: true},
	"quit":           {flags: noReply},
	"shutdown":       {max: 1},
	"watch":          {max: -1, flags: endsDialogue},
	"cache_memlimit": {min: 1, max: 2, distinct: true},
	"slabs":          {min: 1, max: -1, subcommand: true},
	"lru":            {min: 1, max: -1, subcommand: true},
	"lru_crawler":    {min: 1, max: -1, subcommand: true, distinct: true},
	"refresh_certs":  {distinct: true},

	"mg": {firstKey: 1, min: 1, max: -1, flags: retrieves, meta: true},
	"ms": {firstKey: 1, size: 2, min: 2, max: -1, meta: true, distinct: true},
	"md": {firstKey: 1, min: 1, max: -1, meta: true},
	"ma": {firstKey: 1, min: 1, max: -1, meta: true},
	"me": {firstKey: 1, min: 1, max: -1, meta: true},
	"mn": {flags: endsQuiet},
}

// maxNameLength is the length of the longest name in commands.
const maxNameLength = len("cache_memlimit")

// nextWord returns the first word of line, and the rest of line.
func nextWord(line []byte) (word, rest []byte) {
	line = bytes.TrimLeft(line, " ")
	blank := bytes.IndexByte(line, ' ')
	if blank < 0 {
		return line, nil
	}
	return line[:blank], line[blank+1:]
}

// parseCommand parses a command line. ok is false if the server answers line with an error and reads on behind it: no
// data block follows then, whatever its size. The server skips blanks in front of the name.
func parseCommand(line []byte) (cmd command, ok bool) {
	name, rest := nextWord(line)
	if len(name) > maxNameLength {
		return cmd, false
	}
	syntax, ok := commands[string(name)]
	if !ok {
		return cmd, false
	}
	cmd = command{name: name, flags: syntax.flags, distinct: syntax.distinct}

	// Count the words. noreply at the end is not one of the syntax.
	words, size, isQuiet, isNoReply := scanWords(rest, &syntax)
	if !validNumbers(rest, &syntax) || syntax.firstKey > 0 && syntax.max >= 0 && words > syntax.max {
		return cmd, false
	}
	if isNoReply {
		words--
		cmd.flags |= noReply
	}
	if isQuiet {
		cmd.flags |= quiet
	}
	if words < syntax.min || syntax.max >= 0 && words > syntax.max {
		return cmd, false
	}

	// The size of the data block, the name with a subcommand, the keys.
	if syntax.size > 0 {
		if cmd.valueBytes, ok = sizeOf(size); !ok {
			return cmd, false
		}
		cmd.flags |= hasData
	}
	if syntax.subcommand && words > 0 {
		sub, _ := nextWord(rest)
		cmd.name = []byte(string(name) + " " + string(sub))
	}
	if syntax.firstKey > 0 {
		for range syntax.firstKey - 1 {
			_, rest = nextWord(rest)
		}
		cmd.keys, cmd.oneKey = rest, !syntax.manyKeys
	}
	for key, left := cmd.nextKey(cmd.keys); len(key) > 0; key, left = cmd.nextKey(left) {
		if len(key) > maxKey {
			return cmd, false
		}
	}
	return cmd, true
}

// malformedCommand returns a command without keys for a line that the server rejects. Its name is the first
// word, or empty if that is too long.
func malformedCommand(line []byte) command {
	name, _ := nextWord(line)
	if len(name) > 2*maxNameLength {
		name = nil
	}
	return command{name: name}
}

// scanWords counts the words after the name of a command. size is the word with the size of the data block.
// isQuiet reports the flag q of a meta command. isNoReply reports that the last word is noreply.
func scanWords(rest []byte, s *syntax) (words int, size []byte, isQuiet, isNoReply bool) {
	var word []byte
	for word, rest = nextWord(rest); len(word) > 0; word, rest = nextWord(rest) {
		words++
		if words == s.size {
			size = word
		}
		if s.meta && words > max(s.firstKey, s.size) && string(word) == "q" {
			isQuiet = true
		}
		// noreply as the first word is a key, unless the command has no keys.
		isNoReply = !s.meta && string(word) == "noreply" && (words > 1 || s.firstKey == 0)
	}
	return words, size, isQuiet, isNoReply
}

// nextKey returns the first key in keys, and the rest of keys for the next call. After the last key it
// returns an empty one.
func (c *command) nextKey(keys []byte) (key, rest []byte) {
	key, rest = nextWord(keys)
	if c.oneKey {
		rest = nil
	}
	return key, rest
}

// A replyLine is one line of a reply. Its slices alias the line.
type replyLine struct {
	status     []byte // the first word
	text       []byte // of an error: the message, or the whole line if there is none
	last       bool   // the reply ends with this line
	hasData    bool   // the data of a value follows
	isError    bool
	valueBytes uint64
	distinct   bool // no other text protocol has such a line
}

var numberStatus = []byte("VALUE")

// parseReplyLine parses a line of a reply. ok is false if line is not one.
func parseReplyLine(line []byte) (reply replyLine, ok bool) {
	if len(line) == 0 {
		return reply, false
	}
	word, rest := nextWord(line)
	reply.status = word
	if line[0] == ' ' || !printable(line) {
		return reply, false
	}
	switch string(word) {
	case "VALUE": // VALUE key flags bytes [cas]
		_, rest = nextWord(rest)
		_, rest = nextWord(rest)
		size, _ := nextWord(rest)
		reply.hasData, reply.distinct = true, true
		reply.valueBytes, ok = number(size, maxValue)
		return reply, ok
	case "VA": // VA bytes flags*
		size, _ := nextWord(rest)
		reply.hasData, reply.last, reply.distinct = true, true, true
		reply.valueBytes, ok = number(size, maxValue)
		return reply, ok
	case "STAT", "ITEM":
		reply.distinct = true
		return reply, len(rest) > 0
	case "STORED", "NOT_STORED", "END", "EN", "MN", "NS", "VERSION":
		reply.last, reply.distinct = true, true
		return reply, true
	case "EXISTS", "NOT_FOUND", "DELETED", "TOUCHED", "OK", "RESET", "HD", "EX", "NF", "ME",
		"BUSY", "BADCLASS", "NOSPARE", "NOTFULL", "UNSAFE", "SAME":
		reply.last = true
		return reply, true
	case "ERROR":
		reply.last, reply.isError, reply.text = true, true, line
		return reply, true
	case "CLIENT_ERROR", "SERVER_ERROR":
		reply.last, reply.isError, reply.text, reply.distinct = true, true, rest, true
		return reply, true
	}
	if _, ok := number(word, 0); ok && len(bytes.TrimSpace(rest)) == 0 { // incr and decr: the new value
		reply.status, reply.last = numberStatus, true
		return reply, true
	}
	return reply, bytes.HasPrefix(word, []byte("key=")) // lru_crawler metadump
}

// validNumbers reports whether the words of a store that are numbers are what strtoul and strtol of the server take.
func validNumbers(rest []byte, s *syntax) bool {
	if s.numbers == 0 {
		return true
	}
	var word []byte
	for i := 1; i <= max(s.numbers+1, s.cas); i++ {
		word, rest = nextWord(rest)
		if i < s.numbers || i > s.numbers+1 && i != s.cas {
			continue
		}
		text := bytes.TrimPrefix(word, []byte{'+'})
		if i != s.numbers+1 { // strtoul of 64 bits
			if _, ok := number(withoutZeros(text), 0); !ok {
				return false
			}
			continue
		}
		if len(text) == len(word) { // strtol takes one sign
			text = bytes.TrimPrefix(word, []byte{'-'})
		}
		if _, ok := number(withoutZeros(text), math.MaxInt64); !ok {
			return false
		}
	}
	return true
}

// withoutZeros returns a number without the zeros at its front.
func withoutZeros(text []byte) []byte {
	for len(text) > 1 && text[0] == '0' {
		text = text[1:]
	}
	return text
}

// sizeOf parses the size of a data block, as strtol of the server does.
func sizeOf(word []byte) (uint64, bool) {
	return number(withoutZeros(bytes.TrimPrefix(word, []byte{'+'})), maxStore)
}

// number parses a decimal number of up to limit. A limit of 0 stands for 2⁶⁴−1.
func number(word []byte, limit uint64) (uint64, bool) {
	if len(word) == 0 || len(word) > 20 || word[0] == '+' || word[0] == '-' {
		return 0, false
	}
	value, err := strconv.ParseUint(string(word), 10, 64)
	return value, err == nil && (limit == 0 || value <= limit)
}

// printable reports whether data has no control characters. Keys may have any other byte.
func printable(data []byte) bool {
	for _, c := range data {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}
