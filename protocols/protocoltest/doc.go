// Package protocoltest is the test kit of parsers.
//
// A Conversation is what two sides of a connection send, step by step: written in Go, or read from a
// transcript in protocols/testdata. Play returns its events as text, Events as they are.
//
// CheckProperties holds a conversation to what every protocol must do, whatever is lost and however the bytes
// are cut; Fuzz does it for any bytes; CheckNegative checks that a conversation of another protocol is not
// recognised. Capture plays a capture file.
//
// Called by the tests of protocols/all and of each parser. docs/ADDING-A-PROTOCOL.md says which to call.
package protocoltest
