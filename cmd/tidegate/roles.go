package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A role is a part of the system, or a set of parts. A process has one or several; `run` has all of them.
type role uint8

const (
	roleBroker role = 1 << iota
	roleStore
	roleEngine
	rolePublisher
	roleCollector

	roleAll = roleBroker | roleStore | roleEngine | rolePublisher | roleCollector
)

// roleNames holds the roles by the words of --only.
var roleNames = map[string]role{
	"broker":    roleBroker,
	"store":     roleStore,
	"engine":    roleEngine,
	"publisher": rolePublisher,
	"collector": roleCollector,
}

// A roleSet holds the roles of a command.
type roleSet struct {
	all   role
	named role // those that --only names
}

// parseRoles returns the roles with these names. Without names it returns all roles, none of them as named.
func parseRoles(names []string) (roleSet, error) {
	if len(names) == 0 {
		return roleSet{all: roleAll}, nil
	}
	var roles role
	for _, name := range names {
		parsed, ok := roleNames[name]
		if !ok {
			known := strings.Join(slices.Sorted(maps.Keys(roleNames)), ", ")
			return roleSet{}, fmt.Errorf("--only %s: not one of %s", name, known)
		}
		roles |= parsed
	}
	return roleSet{all: roles, named: roles}, nil
}

// String returns the words of --only for r, in the order in which the parts start.
func (r role) String() string {
	var names []string
	for part := roleBroker; part <= roleCollector; part <<= 1 {
		for name, named := range roleNames {
			if named == part && r&part != 0 {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ", ")
}

// rolesToRun returns roles without the embedded servers that an address in the configuration replaces.
func (c *Config) rolesToRun(roles role) role {
	if !c.embeddedBroker() {
		roles &^= roleBroker
	}
	if !c.embeddedStore() {
		roles &^= roleStore
	}
	return roles
}
