//go:build !failpoints

package main

// killFailpoint returns nil: the released binary has no failpoints.
func killFailpoint() func(string) { return nil }
