package feeds

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	maxJSONToken = 1 << 20 // bytes of a text, or of white space
	maxJSONDepth = 32
	maxTagText   = 1 << 10 // bytes of the tags of an object
)

// readJSON adds the indicators of a JSON text, an object after the other:
//
//   - indicators of STIX 2.1, wherever they are; other objects with the id of STIX have none
//   - attributes of MISP, the objects below a key Attribute, wherever they are
//   - other objects in a list or by an id, not deeper than that, whose keys are columns: the exports of abuse.ch, JSON lines
func (p *feedParser) readJSON(in io.Reader) error {
	limited := &tokenReader{in: in, left: maxJSONToken}
	decoder := json.NewDecoder(limited)
	decoder.UseNumber()
	number := 0 // of the objects that have ended
	var stack []jsonFrame
	for {
		token, err := decoder.Token()
		limited.left = maxJSONToken
		if err != nil {
			if errors.Is(err, io.EOF) && len(stack) == 0 {
				return nil
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%s: at byte %d: %w", p.path, decoder.InputOffset(), err)
		}
		var top *jsonFrame
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}

		// 1. A name in an object.
		if text, ok := token.(string); ok && top != nil && top.object && !top.named {
			top.key, top.named = text, true
			continue
		}

		// 2. The begin and the end of an object or a list.
		delim, isDelim := token.(json.Delim)
		if isDelim && (delim == '{' || delim == '[') {
			if len(stack) == maxJSONDepth {
				return fmt.Errorf("%s: at byte %d: nested more than %d deep", p.path, decoder.InputOffset(), maxJSONDepth)
			}
			next := jsonFrame{object: delim == '{'}
			if top != nil {
				next.parent = top.key
			}
			if !next.object {
				next.key = next.parent // the elements of a list have its name
			} else {
				next.record = &record{}
			}
			stack = append(stack, next)
			continue
		}
		if isDelim {
			ended := *top
			stack = stack[:len(stack)-1]
			if ended.object {
				number++
				ended.record[columnTags] = string(ended.tags)
				p.endObject(stack, &ended, number)
			}
		} else {
			p.setScalar(stack, token)
		}

		// 3. A value of an object has ended: a name follows.
		if len(stack) > 0 {
			stack[len(stack)-1].named = false
		}
	}
}

// A jsonFrame is an object or a list that has begun.
type jsonFrame struct {
	object bool
	named  bool    // a value follows
	key    string  // the name of the value, in a list that of the list
	parent string  // the key that it stands under
	record *record // of an object
	tags   []byte  // of an object, separated by commas
}

// setScalar takes a text, a number or a truth value into the record of its object, or a tag in a list into that of the
// object around it.
func (p *feedParser) setScalar(stack []jsonFrame, token json.Token) {
	if len(stack) == 0 {
		return
	}
	text := ""
	switch token := token.(type) {
	case string:
		text = token
	case json.Number:
		text = token.String()
	case bool:
		text = fmt.Sprint(token)
	}
	top := &stack[len(stack)-1]
	column := columnOf(top.key)
	switch {
	case !top.object && column == columnTags:
		addTag(stack[:len(stack)-1], text)
	case !top.object && len(stack) == 1:
		p.addRecord(&record{columnValue: text}, 0) // a list of indicators alone
	case !top.object:
	case column == columnTags:
		addTag(stack, text)
	case column != noColumn && top.record[column] == "":
		top.record[column] = text
	case top.parent == "Event" && top.key == "info":
		p.source = shortNote(text)
	}
}

// addTag adds the tags of a text, which commas separate, to the innermost object. Tags beyond maxTagText are left out.
func addTag(stack []jsonFrame, text string) {
	if len(text) >= maxTagText {
		return
	}
	for i := len(stack) - 1; i >= 0; i-- {
		if !stack[i].object {
			continue
		}
		// What is there already is not read again: an object may have any number of tags.
		tags := &stack[i].tags
		for tag := range strings.SplitSeq(strings.ReplaceAll(text, "\x00", ""), ",") {
			if tag = strings.TrimSpace(tag); isTag(tag) && len(*tags)+1+len(tag) < maxTagText {
				if len(*tags) > 0 {
					*tags = append(*tags, ',')
				}
				*tags = append(*tags, tag...)
			}
		}
		return
	}
}

// endObject adds the indicators of an object that has ended, within the objects and lists of stack.
func (p *feedParser) endObject(stack []jsonFrame, ended *jsonFrame, number int) {
	r := ended.record
	typ, id := r[columnType], r[columnID]
	isSTIX := typ != "" && strings.HasPrefix(id, typ+"--")
	if isSTIX && typ == "identity" && len(p.identities) < maxIdentities {
		if p.identities == nil {
			p.identities = map[string]string{}
		}
		p.identities[id] = shortNote(r[columnName])
	}
	switch {
	case columnOf(ended.parent) == columnTags:
		addTag(stack, r[columnName])
	case isSTIX && typ == "indicator":
		r[columnSource] = p.identities[r[columnCreatedBy]]
		p.addIndicator(r, number)
	case isSTIX:
	case ended.parent == "Attribute":
		if !isFalse(r[columnForDetection]) && r[columnValue] != "" {
			p.addRecord(r, number)
		}
	case len(stack) <= 2 && r.hasIndicator():
		p.addRecord(r, number)
	}
}

// maxIdentities bounds the names of sources of a STIX bundle.
const maxIdentities = 1000

// hasIndicator reports whether a column may hold an indicator.
func (r *record) hasIndicator() bool {
	for column := columnValue; column <= columnUserAgent; column++ {
		if r[column] != "" {
			return true
		}
	}
	return false
}

// A tokenReader reads no more than left bytes, which its user sets anew after each token: the decoder holds a token whole.
type tokenReader struct {
	in   io.Reader
	left int
}

var errLongToken = fmt.Errorf("a text has more than %d bytes", maxJSONToken)

func (r *tokenReader) Read(b []byte) (int, error) {
	if r.left <= 0 {
		return 0, errLongToken
	}
	n, err := r.in.Read(b[:min(len(b), r.left)])
	r.left -= n
	return n, err
}
