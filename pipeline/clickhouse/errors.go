package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	driver "github.com/ClickHouse/clickhouse-go/v2"
)

// rejectionCodes are the server's codes that mean: these rows, whenever they come. What is not listed passes, in the worst case when
// someone repairs the schema or the password: rows must not end as dead letters because a table was not there yet.
var rejectionCodes = map[int32]string{
	6: "CANNOT_PARSE_TEXT", 9: "SIZES_OF_COLUMNS_DOESNT_MATCH", 27: "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
	53: "TYPE_MISMATCH", 69: "ARGUMENT_OUT_OF_BOUND", 70: "CANNOT_CONVERT_TYPE", 117: "INCORRECT_DATA",
	128: "TOO_LARGE_ARRAY_SIZE", 131: "TOO_LARGE_STRING_SIZE", 158: "TOO_MANY_ROWS", 190: "SIZES_OF_ARRAYS_DONT_MATCH",
	307: "TOO_MANY_BYTES", 321: "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE", 349: "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
	396: "TOO_MANY_ROWS_OR_BYTES", 407: "DECIMAL_OVERFLOW", 469: "VIOLATED_CONSTRAINT",
}

// errColumnMismatch is a block that the driver itself will not send.
var errColumnMismatch = errors.New("block does not fit the table")

// IsPermanent tells whether the server refused the rows for good, so that the block is worth bisecting. All else passes: it is tried
// again, with the same token.
func IsPermanent(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if errors.Is(err, errColumnMismatch) {
		return true
	}
	var ex *driver.Exception
	if !errors.As(err, &ex) {
		return false
	}
	_, ok := rejectionCodes[ex.Code]
	return ok
}

func errorCode(err error) int32 {
	if ex, ok := errors.AsType[*driver.Exception](err); ok {
		return ex.Code
	}
	return 0
}

// describeError makes one sentence of what the driver says, and names the address.
func describeError(err error, cfg Config) error {
	if err == nil {
		return nil
	}
	at := cfg.address()
	switch errorCode(err) {
	case 516, 193, 192, 194:
		return &describedError{fmt.Sprintf("ClickHouse at %s refuses user %q: the password is wrong or there is no such user", at, cfg.Username), err}
	case 700:
		return &describedError{fmt.Sprintf("ClickHouse at %s refuses user %q: too many sessions of it", at, cfg.Username), err}
	case 0:
	default:
		return fmt.Errorf("ClickHouse at %s: %w", at, err)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("ClickHouse at %s: %w", at, err)
	}
	cause := err
	if u, ok := errors.AsType[*url.Error](err); ok {
		cause = u.Err // without the URL, which holds the whole query
	}
	text, _, _ := strings.Cut(cause.Error(), "\n")
	return &describedError{fmt.Sprintf("ClickHouse at %s does not answer: %s", at, text), err}
}

// describedError reads well and still unwraps to what happened.
type describedError struct {
	text  string
	cause error
}

func (e *describedError) Error() string { return e.text }
func (e *describedError) Unwrap() error { return e.cause }

func (c Config) address() string {
	if c.Protocol == "http" {
		return c.HTTPAddr
	}
	return strings.Join(c.Addr, ", ")
}
