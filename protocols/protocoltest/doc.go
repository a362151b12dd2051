// Package protocoltest is the test kit of parsers.
//
// A Conversation is the list of steps that two sides of a connection send. It is written in Go, or read from a
// transcript in protocols/testdata. Play returns its events as text, Events as pipeline events.
//
// CheckProperties checks with a conversation the properties of every parser: the events do not depend on how
// the bytes are cut, and are true or partial whatever bytes are lost. Fuzz checks them with arbitrary bytes.
// CheckNegative checks that a conversation of another protocol is not recognised. Capture plays a capture
// file.
//
// The tests of protocols/all and of each parser call the kit. docs/ADDING-A-PROTOCOL.md lists which function
// to call when.
package protocoltest
