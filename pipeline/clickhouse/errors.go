package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"tidegate/pipeline"
)

// rejectionCodes are the server's error codes that the rows cause: the same rows fail whenever they are
// inserted. Every code that is not listed is taken as temporary, in the worst case until somebody repairs the
// schema or the password: rows must not end as dead letters because a table was not there yet.
var rejectionCodes = map[int32]string{
	6: "CANNOT_PARSE_TEXT", 9: "SIZES_OF_COLUMNS_DOESNT_MATCH", 27: "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
	53: "TYPE_MISMATCH", 69: "ARGUMENT_OUT_OF_BOUND", 70: "CANNOT_CONVERT_TYPE", 117: "INCORRECT_DATA",
	128: "TOO_LARGE_ARRAY_SIZE", 131: "TOO_LARGE_STRING_SIZE", 158: "TOO_MANY_ROWS", 190: "SIZES_OF_ARRAYS_DONT_MATCH",
	307: "TOO_MANY_BYTES", 321: "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE", 349: "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
	396: "TOO_MANY_ROWS_OR_BYTES", 407: "DECIMAL_OVERFLOW", 469: "VIOLATED_CONSTRAINT",
}

// loginCodes are the server's error codes for a user or a password that it does not accept.
var loginCodes = map[int32]string{
	192: "UNKNOWN_USER", 193: "WRONG_PASSWORD", 194: "REQUIRED_PASSWORD", 516: "AUTHENTICATION_FAILED",
}

const codeTooManySessions = 700 // USER_SESSION_LIMIT_EXCEEDED

// rejectedError is an error that the rows cause. It wraps its cause and is pipeline.ErrRowsRejected.
type rejectedError struct{ error }

func (e rejectedError) Unwrap() error        { return e.error }
func (e rejectedError) Is(target error) bool { return target == pipeline.ErrRowsRejected }

// errColumnMismatch is the error of a block that the driver cannot send, because its columns are not those of
// the table.
var errColumnMismatch error = rejectedError{errors.New("block does not fit the table")}

// IsDenied reports whether the server did not accept the user or the password.
func IsDenied(err error) bool {
	_, denied := loginCodes[errorCode(err)]
	return denied
}

// errorCode returns the server's code in err; 0 where err does not come from the server.
func errorCode(err error) int32 {
	if ex, ok := errors.AsType[*driver.Exception](err); ok {
		return ex.Code
	}
	return 0
}

// describeError returns err as one sentence that names the server's address. The driver's error stays
// reachable by errors.As. An error that blames the rows becomes pipeline.ErrRowsRejected, so that the block
// is worth bisecting; after every other error an insert is repeated under the same token.
func describeError(err error, cfg Config) error {
	if err == nil {
		return nil
	}
	addr := cfg.address()
	switch code := errorCode(err); {
	case IsDenied(err):
		return &describedError{deniedText(addr, cfg.Username), err}
	case code == codeTooManySessions:
		text := fmt.Sprintf("ClickHouse at %s refuses user %q: the user has too many sessions", addr, cfg.Username)
		return &describedError{text, err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("ClickHouse at %s: %w", addr, err)
	case rejectionCodes[code] != "":
		return rejectedError{fmt.Errorf("ClickHouse at %s: %w", addr, err)}
	case code != 0:
		return fmt.Errorf("ClickHouse at %s: %w", addr, err)
	}

	cause := err
	if u, ok := errors.AsType[*url.Error](err); ok {
		cause = u.Err // without the URL, which holds the whole query
	}
	text, _, _ := strings.Cut(cause.Error(), "\n")
	return &describedError{fmt.Sprintf("ClickHouse at %s does not answer: %s", addr, text), err}
}

// deniedText is the sentence for an error of which IsDenied is true.
func deniedText(addr, user string) string {
	return fmt.Sprintf("ClickHouse at %s refuses user %q: the password is wrong or there is no such user", addr, user)
}

// describedError is a sentence for a person that unwraps to the error that it describes.
type describedError struct {
	text  string
	cause error
}

func (e *describedError) Error() string { return e.text }
func (e *describedError) Unwrap() error { return e.cause }

// address returns the host and port that inserts and lookups go to.
func (c Config) address() string {
	if c.Protocol == "http" {
		return c.HTTPAddr
	}
	return strings.Join(c.Addr, ", ")
}
