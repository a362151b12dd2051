package pipeline

import (
	"strconv"
	"time"

	"github.com/google/uuid"
)

// maxListText is the maximum number of list elements in the text of a field.
const maxListText = 20

// AppendText appends the value of the field in event as text for people, such as the evidence of an alert or
// test output. Scalars have the same form as in JSON, but without quotes. A list is joined by ", " and cut
// after 20 elements; labels read "key=value, …". An absent field is "", 0 or false.
func (f *Field) AppendText(dst []byte, event *Event) []byte {
	switch {
	case f.Strs != nil:
		var few [16]string
		return appendTexts(dst, f.Strs(event, few[:0]), func(dst []byte, s string) []byte { return append(dst, s...) })
	case f.Nums != nil:
		var few [16]int64
		return appendTexts(dst, f.Nums(event, few[:0]), appendInt)
	case f.Labels != nil:
		for i, label := range f.Labels(event) {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = append(append(append(dst, label.GetKey()...), '='), label.GetValue()...)
		}
		return dst
	}
	return f.appendScalar(dst, event)
}

// Text returns the text of AppendText. The text of a string field aliases the event.
func (f *Field) Text(event *Event) string {
	if f.Str != nil {
		return f.Str(event)
	}
	return string(f.AppendText(nil, event))
}

// appendScalar appends the value of a field that is neither a list nor labels. The text is plain except where
// Str is set: only strings have characters that JSON must escape.
func (f *Field) appendScalar(dst []byte, event *Event) []byte {
	switch {
	case f.Str != nil:
		return append(dst, f.Str(event)...)
	case f.Num != nil:
		return strconv.AppendInt(dst, f.Num(event), 10)
	case f.Flag != nil:
		return strconv.AppendBool(dst, f.Flag(event))
	case f.Time != nil:
		return time.Unix(0, f.Time(event)).UTC().AppendFormat(dst, time.RFC3339Nano)
	case f.IP != nil:
		if a := f.IP(event); a.IsValid() {
			return a.AppendTo(dst)
		}
		return dst
	}
	return append(dst, rawText(f.Raw(event))...)
}

func appendTexts[T any](dst []byte, list []T, appendOne func([]byte, T) []byte) []byte {
	for i, value := range list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		if i == maxListText {
			return append(dst, "…"...)
		}
		dst = appendOne(dst, value)
	}
	return dst
}

// rawText returns the text form of an identity: a UUID for the 16 bytes of event.id, "1:" and base64 for a
// community ID.
func rawText(data []byte) string {
	if id, err := uuid.FromBytes(data); err == nil {
		return id.String()
	}
	return CommunityIDText(data)
}
