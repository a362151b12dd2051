package rules

import (
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// parseEvent parses the event of a test case: fields with nested or dotted names, as `tidegate replay -o
// jsonl` prints them. If event.dataset is absent, it follows from the other fields. Fields that are computed
// or written later are ignored, so that a printed event can be pasted unchanged. number replaces {n} in
// texts; 0 replaces nothing.
func parseEvent(node config.Node, number int) *pipeline.Event {
	if !node.IsMapping() {
		node.Errorf("expected a mapping of fields, got %s", node.Kind())
		return nil
	}
	if isStoredRow(node) {
		return parseStoredRow(node, number)
	}
	fixture := fixture{number: number, nodes: map[*pipeline.Field]config.Node{}}
	fixture.setFields(node, node.Key(), "", 0)
	event, err := fixture.builder.Event()
	switch {
	case errors.Is(err, pipeline.ErrNoDataset):
		node.Errorf("event.dataset is missing, and no field belongs to one dataset only")
	case err != nil:
		node.Errorf("%v", err)
	default:
		fixture.completeEvent(event)
	}
	return event
}

// A fixture is the event of a test case that is being parsed.
type fixture struct {
	builder pipeline.Builder
	number  int                             // replaces {n} in texts
	nodes   map[*pipeline.Field]config.Node // the values, for errors
}

// isStoredRow reports whether a mapping is a row of the table events, as `tidegate query -o json 'SELECT *
// …'` prints it. It has columns that are no fields.
func isStoredRow(node config.Node) bool {
	for _, entry := range node.Entries() {
		if entry.Key == "_offset" || entry.Key == "_sequence" {
			return true
		}
	}
	return false
}

// parseStoredRow returns the event of a row.
func parseStoredRow(node config.Node, number int) *pipeline.Event {
	row := map[string]any{}
	for _, entry := range node.Entries() {
		row[entry.Key] = valueOf(entry.Value, number)
	}
	fields, ok := pipeline.FieldsOfRow(row)
	if !ok {
		node.Errorf("event.dataset is missing")
		return nil
	}
	event, err := pipeline.FromMap(fields)
	if err != nil {
		node.Errorf("%v", err)
	}
	return event
}

// completeEvent sets the fields of an event that a parser computes from others, as in production, so that a
// case cannot pass with values that no event has. A value of the case that is another one is an error.
func (f *fixture) completeEvent(event *pipeline.Event) {
	switch event.Dataset {
	case pipeline.Dataset_DNS:
		f.completeDNS(event.Dns)
	case pipeline.Dataset_HTTP:
		f.completeHTTP(event.Http)
	}
}

// completeDNS sets the registered domain of the question.
func (f *fixture) completeDNS(body *pipeline.DNSMessage) {
	if body == nil {
		return
	}
	want := pipeline.RegisteredDomain(body.QuestionName)
	node, given := f.nodes[pipeline.Lookup("dns.question.registered_domain")]
	switch {
	case !given:
		body.RegisteredDomain = want
	case body.QuestionName != "" && body.RegisteredDomain != want:
		node.Errorf("of %q it is %q, with private suffixes such as duckdns.org; leave it out", body.QuestionName, want)
	case body.QuestionName == "" && pipeline.RegisteredDomain(body.RegisteredDomain) != body.RegisteredDomain:
		node.Errorf("%q is not a registered domain: it is a public suffix, perhaps a private one, or a name below one",
			body.RegisteredDomain)
	}
}

// completeHTTP sets the path and the query of the target, and the target of a path and a query.
func (f *fixture) completeHTTP(body *pipeline.HTTPExchange) {
	if body == nil || body.Method == "CONNECT" {
		return
	}
	if body.UrlOriginal == "" {
		if body.UrlOriginal = body.UrlPath; body.UrlQuery != "" {
			body.UrlOriginal += "?" + body.UrlQuery
		}
		return
	}
	path, query := splitTarget(body.UrlOriginal)
	check := func(name, want string, value *string) {
		node, given := f.nodes[pipeline.Lookup(name)]
		if given && *value != want {
			node.Errorf("of the url.original %q it is %q; leave it out", body.UrlOriginal, want)
		}
		*value = want
	}
	check("url.path", path, &body.UrlPath)
	check("url.query", query, &body.UrlQuery)
}

// schemeAndAuthority matches the beginning of an absolute URL.
var schemeAndAuthority = regexp.MustCompile(`^[A-Za-z]{1,10}://[^/?#]*`)

// splitTarget returns the path and the query of a request target, as the HTTP parser splits it.
func splitTarget(target string) (path, query string) {
	target = target[len(schemeAndAuthority.FindString(target)):]
	target, _, _ = strings.Cut(target, "#")
	path, query, _ = strings.Cut(target, "?")
	return path, query
}

// setFields sets the fields of the mapping n, to whose keys prefix is prepended. key is the path of the event
// in the file, for errors.
func (f *fixture) setFields(n config.Node, key, prefix string, depth int) {
	const maxDepth = 8
	for _, entry := range n.Entries() {
		name := prefix + entry.Key
		value := entry.Value.Named(key + "." + name)
		field := pipeline.Lookup(name)
		// A mapping is the value of a field (container.labels) or a longer prefix.
		switch {
		case field == nil && value.IsMapping() && depth < maxDepth:
			f.setFields(value, key, name+".", depth+1)
		case field == nil:
			value.Errorf("%s", unknownName(name, nil))
		case strings.HasPrefix(name, "verdict."):
		default:
			f.nodes[field] = value
			setField(&f.builder, field, value, f.number)
		}
	}
}

func setField(b *pipeline.Builder, f *pipeline.Field, node config.Node, number int) {
	value := valueOf(node, number)
	if text, ok := value.(string); ok && number > 0 && f.Num != nil { // {n} stands between quotes, also where it is a number
		if parsed, err := strconv.ParseInt(text, 10, 64); err == nil {
			value = parsed
		}
	}
	err := b.Set(f, value)
	// The node has the kind of the value as it was written: whether a number has no quotes.
	var mismatch *pipeline.TypeError
	switch {
	case err == nil, errors.Is(err, pipeline.ErrComputed):
	case errors.As(err, &mismatch) && !node.IsMapping() && !node.IsList():
		node.Errorf("expected %s, got %s", mismatch.Want, node.Kind())
	default:
		node.Errorf("%v", err)
	}
}

// valueOf returns a value of a file as pipeline.Field.Set takes it, with number in place of {n} in texts.
func valueOf(node config.Node, number int) any {
	if node.IsList() {
		var list []any
		for _, item := range node.Items() {
			list = append(list, valueOf(item, number))
		}
		return list
	}
	if node.IsMapping() { // of labels, whose values are texts however they are written
		labels := map[string]string{}
		for _, e := range node.Entries() {
			labels[e.Key], _ = e.Value.Scalar()
		}
		return labels
	}
	if text, ok := node.Text(); ok {
		if number > 0 {
			text = strings.ReplaceAll(text, "{n}", strconv.Itoa(number))
		}
		return text
	}
	if number, ok := node.Int(); ok {
		return number
	}
	if flag, ok := node.Bool(); ok {
		return flag
	}
	if written, ok := node.Scalar(); ok {
		return json.Number(written)
	}
	return nil
}
