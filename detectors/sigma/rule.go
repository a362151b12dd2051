package sigma

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"tidegate/pipeline/config"
)

// A document is one document of a Sigma file: a rule or a correlation.
type document struct {
	doc         *config.Document
	node        config.Node
	id          string // as other rules refer to it, and of the converted rule
	name        string // another name by which correlations refer to it
	title       string
	description string
	author      string
	license     string
	status      string
	level       string
	references  []string
	tags        []string
	positives   []string // falsepositives

	logsource   logsource
	condition   *condition
	source      *source // nil: refused
	correlation *correlation

	generates  bool  // a correlation says that the rules it refers to make alerts themselves
	referredBy int   // how many correlations refer to it
	refusal    error // of type *config.Error
}

// A logsource is what kind of events a rule is about.
type logsource struct{ category, product, service string }

func (l logsource) String() string {
	var parts []string
	for _, part := range []struct{ key, value string }{{"category", l.category}, {"product", l.product}, {"service", l.service}} {
		if part.value != "" {
			parts = append(parts, part.key+" "+part.value)
		}
	}
	return strings.Join(parts, ", ")
}

// The bounds of a file.
const (
	maxFileBytes = 1 << 20
	maxDocuments = 200
)

// splitDocuments returns the YAML documents of a file. In front of each stand as many empty lines as it has
// lines in front of it, so that positions are those of the file.
func splitDocuments(data []byte) (out [][]byte) {
	start, lines := 0, 0
	add := func(end, before int) {
		if text := data[start:end]; len(bytes.TrimSpace(text)) > 0 {
			out = append(out, append(bytes.Repeat([]byte("\n"), before), text...))
		}
	}
	before := 0
	for i := 0; i < len(data); {
		end := len(data)
		if next := bytes.IndexByte(data[i:], '\n'); next >= 0 {
			end = i + next + 1
		}
		line := bytes.TrimRight(data[i:end], " \t\r\n")
		lines++
		if isDocumentMark(line) {
			add(i, before)
			start, before = end, lines
		}
		i = end
	}
	add(len(data), before)
	return out
}

// isDocumentMark reports whether a line divides documents. A comment may stand behind the mark.
func isDocumentMark(line []byte) bool {
	mark, behind, _ := bytes.Cut(line, []byte("#"))
	mark = bytes.TrimRight(mark, " \t")
	isMark := string(mark) == "---" || string(mark) == "..."
	return isMark && (len(behind) == 0 || len(mark) < bytes.IndexByte(line, '#'))
}

// decodeText returns a text without its byte order mark, in UTF-8 if the mark is one of UTF-16, which editors
// of Windows write.
func decodeText(data []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return data[3:]
	case bytes.HasPrefix(data, []byte("\xff\xfe")):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte("\xfe\xff")):
		order = binary.BigEndian
	default:
		return data
	}
	var units []uint16
	for i := 2; i+1 < len(data); i += 2 {
		units = append(units, order.Uint16(data[i:]))
	}
	return []byte(string(utf16.Decode(units)))
}

// parseFile parses the documents of a file.
func parseFile(file string, data []byte) (out []*document) {
	fail := func(format string, args ...any) []*document {
		err := &config.Error{File: file, Position: config.Position{Line: 1, Column: 1}, Err: fmt.Errorf(format, args...)}
		return []*document{{refusal: err}}
	}
	if len(data) > maxFileBytes {
		return fail("file has %d bytes, the limit for a Sigma file is %d", len(data), maxFileBytes)
	}
	data = decodeText(data)
	if documents := bytes.Count(data, []byte("\n---")); documents > maxDocuments {
		return fail("file has %d documents, the limit is %d", documents+1, maxDocuments)
	}
	for _, part := range splitDocuments(data) {
		if isComment(part) {
			continue
		}
		d := &document{doc: config.Parse(file, part)}
		d.parse()
		if errs := d.doc.Errors(); d.refusal == nil && len(errs) > 0 {
			d.refusal = errs[0]
		} else if d.refusal == nil && d.condition == nil && d.correlation == nil {
			d.refuse(config.Node{}, "is no Sigma rule")
		}
		out = append(out, d)
	}
	if len(out) == 0 {
		return fail("holds no Sigma rule")
	}
	return out
}

// isComment reports whether a document has comments only, or directives such as %YAML 1.2.
func isComment(data []byte) bool {
	for line := range bytes.Lines(data) {
		directive := line[0] == '%'
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && !directive {
			return false
		}
	}
	return true
}

// refuse sets the reason why the document is not converted; the first one counts.
func (d *document) refuse(node config.Node, format string, args ...any) {
	if d.refusal != nil {
		return
	}
	at := config.Position{Line: 1, Column: 1}
	key := ""
	if node.IsSet() {
		at, key = node.Position(), node.Key()
	}
	d.refusal = &config.Error{File: d.doc.File, Position: at, Key: key, Err: fmt.Errorf(format, args...)}
}

// parse reads the keys of a document.
func (d *document) parse() {
	root, ok := d.doc.Root()
	switch {
	case !ok:
		return // the doc has the error
	case len(d.doc.Aliases()) > 0:
		d.refuse(root, "aliases of YAML are not supported")
		return
	case !root.IsMapping():
		d.refuse(root, "expected a Sigma rule (a mapping with title, logsource and detection), got %s", root.Kind())
		return
	}
	d.node = root
	nodes := map[string]config.Node{}
	for _, entry := range root.Entries() {
		if nodes[entry.Key].IsSet() {
			d.refuse(entry.Value, "%s stands twice", entry.Key)
		}
		nodes[entry.Key] = entry.Value
	}
	text := func(key string) string {
		node := nodes[key]
		if !node.IsSet() || node.IsNull() {
			return ""
		}
		value, ok := node.Scalar()
		if !ok {
			d.refuse(node, "expected a text, got %s", node.Kind())
		}
		return strings.TrimSpace(value)
	}
	list := func(key string) (out []string) {
		node := nodes[key]
		items := node.Items()
		if node.IsSet() && !node.IsNull() && !node.IsList() {
			items = []config.Node{node}
		}
		for _, n := range items {
			if value, ok := n.Scalar(); ok && strings.TrimSpace(value) != "" && len(out) < 100 {
				out = append(out, cut(strings.TrimSpace(value), 1000))
			}
		}
		return out
	}
	d.title, d.description, d.author = cut(text("title"), 500), text("description"), cut(text("author"), 1000)
	d.license, d.status, d.level, d.name = cut(text("license"), 200), text("status"), strings.ToLower(text("level")), text("name")
	d.references, d.tags, d.positives = list("references"), list("tags"), list("falsepositives")
	d.id = ruleID(text("id"), d.title)

	switch {
	case nodes["action"].IsSet():
		d.refuse(nodes["action"], "action is of Sigma 1: write whole rules, divided by ---")
	case d.title == "":
		d.refuse(root, "title is missing")
	case d.id == "":
		d.refuse(root, "has neither an id nor a title with letters")
	case d.status == "unsupported":
		d.refuse(nodes["status"], "the status is unsupported: its author says that it cannot be used")
	case d.level != "" && severities[d.level] == "":
		d.refuse(nodes["level"], "unknown level %q: informational, low, medium, high or critical", d.level)
	case nodes["correlation"].IsSet():
		d.parseCorrelation(nodes["correlation"])
	case !nodes["logsource"].IsSet():
		d.refuse(root, "logsource is missing")
	case !nodes["detection"].IsSet():
		d.refuse(root, "detection is missing")
	default:
		d.parseLogsource(nodes["logsource"])
		d.parseDetection(nodes["detection"])
	}
}

// severities maps levels of Sigma to ours.
var severities = map[string]string{"informational": "info", "low": "low", "medium": "medium", "high": "high", "critical": "critical"}

// severity returns the severity of a rule; one without a level is medium.
func (d *document) severity() string {
	if d.level == "" {
		return "medium"
	}
	return severities[d.level]
}

// ruleID returns an id as our rules have it: of the id of a rule, or made of its title.
func ruleID(id, title string) string {
	text := strings.ToLower(id)
	if text == "" {
		text = strings.ToLower(title)
	}
	mapped := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_' {
			return r
		}
		return '-'
	}, text)
	mapped = strings.Trim(mapped, "-._")
	if id == "" && mapped != "" {
		mapped = "sigma-" + mapped
	}
	return cut(mapped, 100)
}

// cut returns at most limit bytes of text, whole characters.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-3], "") + "…"
}

func (d *document) parseLogsource(node config.Node) {
	if !node.IsMapping() {
		d.refuse(node, "expected a mapping, got %s", node.Kind())
		return
	}
	for _, entry := range node.Entries() {
		text, ok := entry.Value.Scalar()
		text = strings.ToLower(strings.TrimSpace(text))
		switch entry.Key {
		case "category":
			d.logsource.category = text
		case "product":
			d.logsource.product = text
		case "service":
			d.logsource.service = text
		default: // definition, and attributes of others
			continue
		}
		if !ok && !entry.Value.IsNull() {
			d.refuse(entry.Value, "expected a text, got %s", entry.Value.Kind())
		}
	}
	var reason string
	if d.source, reason = findSource(d.logsource); d.source == nil {
		d.refuse(node, "%s", reason)
	}
}

// parseDetection reads the selections and the condition.
func (d *document) parseDetection(node config.Node) {
	if !node.IsMapping() {
		d.refuse(node, "expected a mapping, got %s", node.Kind())
		return
	}
	all := &selections{byName: map[string]*condition{}}
	var conditionNode config.Node
	for _, entry := range node.Entries() {
		switch entry.Key {
		case "condition":
			conditionNode = entry.Value
			continue
		case "timeframe":
			d.refuse(entry.Value, "timeframe is of Sigma 1: write a correlation rule")
			continue
		}
		if len(all.names) == maxSelections {
			d.refuse(entry.Value, "more than %d selections", maxSelections)
			return
		}
		parsed, err := parseSelection(entry.Value, 0)
		if err != nil {
			d.refuse(err.node, "%s", err.message)
			return
		}
		if all.byName[entry.Key] != nil {
			d.refuse(entry.Value, "stands twice")
			return
		}
		all.names, all.byName[entry.Key] = append(all.names, entry.Key), parsed
	}
	if !conditionNode.IsSet() {
		d.refuse(node, "condition is missing")
		return
	}

	// Several conditions are as many rules; the rule matches where one of them does.
	nodes := []config.Node{conditionNode}
	if conditionNode.IsList() {
		nodes = conditionNode.Items()
	}
	var trees []*condition
	for _, n := range nodes {
		text, ok := n.Text()
		if !ok {
			d.refuse(n, "expected a text, got %s", n.Kind())
			return
		}
		tree, err := parseCondition(text, all)
		if err != nil {
			d.refuse(n, "%v", err)
			return
		}
		trees = append(trees, tree)
	}
	if len(trees) == 0 {
		d.refuse(conditionNode, "is empty")
		return
	}
	d.condition = combination("or", trees)
}

// parseSelection reads a selection: a mapping of fields, of which all must match; a list of mappings or
// keywords, of which one must; or one keyword.
func parseSelection(node config.Node, depth int) (*condition, *problem) {
	const maxSelectionDepth = 8
	if depth > maxSelectionDepth {
		return nil, problemf(node, "is nested more than %d deep", maxSelectionDepth)
	}
	switch {
	case node.IsMapping():
		var args []*condition
		for _, entry := range node.Entries() {
			arg, err := parseItem(entry.Key, entry.Value)
			if err != nil {
				return nil, err
			}
			args = append(args, arg)
		}
		if len(args) == 0 {
			return nil, problemf(node, "is empty")
		}
		return combination("and", args), nil
	case node.IsList():
		items := node.Items()
		if len(items) == 0 {
			return nil, problemf(node, "is empty")
		}
		if !slices.ContainsFunc(items, func(n config.Node) bool { return n.IsMapping() || n.IsList() }) {
			return parseItem("", node)
		}
		var args []*condition
		for _, n := range items {
			arg, err := parseSelection(n, depth+1)
			if err != nil {
				return nil, err
			}
			args = append(args, arg)
		}
		return combination("or", args), nil
	case node.IsNull():
		return nil, problemf(node, "is empty")
	}
	return parseItem("", node)
}
