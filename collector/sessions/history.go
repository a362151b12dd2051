package sessions

import "tidegate/collector/reassembly"

// A history lists the kinds of segments that each side has sent, as Zeek does: one letter for each kind, in
// the order of the first occurrences.
type history struct {
	letters [24]byte
	length  uint8
	present uint32 // two bits for each kind, one for each sender
}

// A segmentKind is a kind of segment that has a letter in the history.
type segmentKind uint8

const (
	kindSYN segmentKind = iota
	kindSYNACK
	kindPureACK
	kindData
	kindFIN
	kindReset
	kindRetransmission
	kindZeroWindow
	kindGap
	kindBadChecksum
	kindUrgent
)

// historyLetters holds Zeek's letters by segmentKind, and U for urgent data, which Zeek has none for. Letters of
// the server are written in lower case.
const historyLetters = "SHADFRTWGCU"

const lowerCase = 0x20

// addKind appends the letter of kind for the sender dir unless the history has it already.
func (h *history) addKind(kind segmentKind, dir reassembly.Dir) {
	bit := uint32(1) << (2*uint(kind) + uint(dir))
	if h.present&bit != 0 || int(h.length) == len(h.letters) {
		return
	}
	h.present |= bit
	letter := historyLetters[kind]
	if dir == fromServer {
		letter |= lowerCase
	}
	h.letters[h.length] = letter
	h.length++
}

// historyText returns the letters. If flipped is set, the sides are exchanged and "^" comes first, as in
// Zeek.
func (h *history) historyText(flipped bool) string {
	letters := h.letters[:h.length]
	if !flipped {
		if common, ok := commonHistories[string(letters)]; ok {
			return common
		}
		return string(letters)
	}
	flippedLetters := make([]byte, 0, len(h.letters)+1)
	flippedLetters = append(flippedLetters, '^')
	for _, letter := range letters {
		flippedLetters = append(flippedLetters, letter^lowerCase)
	}
	return string(flippedLetters)
}

// commonHistories holds the texts of frequent histories, so that historyText does not allocate them again.
var commonHistories = func() map[string]string {
	m := map[string]string{}
	for _, s := range []string{
		"Dd", "D", "S", "Sr", "ShAFf", "ShADad", "ShADadFf", "ShADadfF", "ShADadFfA", "ShADadFfR", "ShADadFRf",
		"ShADadR", "ShADadr", "ShADaFdf", "ShADdaf", "ShADdaFf", "ShADdafF", "ShADdFf", "ShADFdfa", "ShAdDaFf",
		"ShAdDaFfA",
	} {
		m[s] = s
	}
	return m
}()
