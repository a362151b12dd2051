package rules

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/zeebo/xxh3"

	"tidegate/pipeline/authority"
	"tidegate/pipeline/config"
)

// ErrDatabase is matched by the error of Load if rules ask a database of addresses that cannot be read, which may pass.
var ErrDatabase = errors.New("a database of addresses cannot be read")

// databaseErrors are the errors of a set with such rules.
type databaseErrors struct{ all Errors }

func (e databaseErrors) Error() string { return e.all.Error() }

// Is reports whether target is ErrDatabase.
func (e databaseErrors) Is(target error) bool { return target == ErrDatabase }

// Unwrap returns the errors of the files.
func (e databaseErrors) Unwrap() error { return e.all }

// maxDatabaseBytes bounds a database of addresses, which is held in memory: a file that is written anew in place while it is mapped
// would end the process.
const maxDatabaseBytes = 1 << 30

// addressDatabases are the databases of addresses of a set, in the format of MaxMind (https://maxmind.github.io/MaxMind-DB/). Each is
// read when the first rule that asks it is compiled.
type addressDatabases struct {
	geo, asn string // paths; empty: none
	opened   map[string]*addressDatabase
}

// An addressDatabase is an open database, or the reason why it cannot be opened.
type addressDatabase struct {
	reader *maxminddb.Reader
	hash   string
	err    error
}

// open returns the database at a path. key is that of the configuration.
func (d *addressDatabases) open(path, key string) (*maxminddb.Reader, error) {
	if path == "" {
		return nil, fmt.Errorf("needs a database in the format of MaxMind: set rules.%s; a command that reads a folder without a configuration takes it from TIDEGATE_%s",
			key, strings.ToUpper(key))
	}
	database := d.opened[path]
	if database == nil {
		database = readDatabase(path)
		if d.opened == nil {
			d.opened = map[string]*addressDatabase{}
		}
		d.opened[path] = database
	}
	if database.err != nil {
		return nil, fmt.Errorf("read rules.%s: %w", key, database.err)
	}
	return database.reader, nil
}

func readDatabase(path string) *addressDatabase {
	fail := func(err error) *addressDatabase { return &addressDatabase{err: err} }
	file, err := config.OpenRegular(path)
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fail(err)
	}
	if info.Size() > maxDatabaseBytes {
		return fail(fmt.Errorf("%s has more than %d bytes", path, maxDatabaseBytes))
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		return fail(fmt.Errorf("%s: %w", path, err))
	}
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return fail(fmt.Errorf("%s is no database in the format of MaxMind: %w", path, err))
	}
	sum := xxh3.Hash128(data).Bytes()
	return &addressDatabase{reader: reader, hash: hex.EncodeToString(sum[:])}
}

// mark returns the errors of a set so that they match ErrDatabase if a database could not be read.
func (d *addressDatabases) mark(all Errors) error {
	for _, database := range d.opened {
		if database.err != nil {
			return databaseErrors{all}
		}
	}
	return all
}

// versions returns the hashes of the databases that rules ask. They are part of the version of the set, but not of the rules: the windows
// of a rule stay when a database is renewed.
func (d *addressDatabases) versions() (hashes []string) {
	for path, database := range d.opened {
		name := "geo "
		if path == d.asn {
			name = "asn "
		}
		hashes = append(hashes, name+database.hash)
	}
	slices.Sort(hashes)
	return hashes
}

// geoParts are the values of geo, by the names in databases of cities and countries.
var geoParts = map[string][]any{
	"country":   {"country", "iso_code"},
	"continent": {"continent", "code"},
	"region":    {"subdivisions", 0, "iso_code"},
	"city":      {"city", "names", "en"},
}

// addressCall resolves geo(address, "part") and asn(address).
func (r *resolver) addressCall(callNode *ast.CallNode, name string) *node {
	called := &function{name: name}
	path, key := r.slots.databases.geo, "geo_database"
	var parts []any
	if name == "asn" {
		path, key = r.slots.databases.asn, "asn_database"
		if len(callNode.Arguments) != 1 {
			return r.addError(callNode, "asn takes an address")
		}
	} else {
		var part *ast.StringNode
		if len(callNode.Arguments) == 2 {
			part, _ = callNode.Arguments[1].(*ast.StringNode)
		}
		if part == nil || geoParts[part.Value] == nil {
			return r.addError(callNode, `geo takes an address and one of "country", "continent", "region" and "city"`)
		}
		parts, called.argument = geoParts[part.Value], part.Value
	}
	of := r.resolve(callNode.Arguments[0])
	if of.kind == invalid {
		return of
	}
	if of.kind != address && of.kind != text {
		return r.addError(callNode, "%s takes an address, %s is %s", name, r.slots.render(of), of.kind)
	}
	reader, err := r.slots.databases.open(path, key)
	if err != nil {
		return r.addError(callNode, "%s: %v", name, err)
	}
	called.address = func(addr netip.Addr) (text string, number int64) {
		if !addr.IsValid() {
			return "", 0
		}
		// An error is that of a damaged database, or of an address of IPv6 in one of IPv4: the value is not known.
		if name == "asn" {
			var system uint32
			_ = reader.Lookup(addr).DecodePath(&system, "autonomous_system_number")
			return "", int64(system)
		}
		_ = reader.Lookup(addr).DecodePath(&text, parts...)
		return text, 0
	}
	if of.op == opSlot {
		return r.slotNode(callNode, r.slots.functionSlot(called, of.slot))
	}
	return &node{op: opFunction, kind: called.kind(), at: r.at(callNode), args: []*node{of}, function: called}
}

// ofText returns the value of a function of an address for a text that holds one.
func (f *function) ofText(value string) (text string, number int64) {
	addr, ok := authority.Addr(value)
	if !ok {
		return "", 0
	}
	return f.address(addr)
}
