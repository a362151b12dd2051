package clickhouse

import (
	"context"
	"fmt"
	"strings"
)

// neededRights are the privileges that an engine needs in its database.
var neededRights = []string{"CREATE DATABASE", "CREATE TABLE", "CREATE VIEW", "ALTER TABLE", "SELECT", "INSERT"}

// CheckRights returns an error that names the privileges that the user of the store lacks in its database. A
// server older than CHECK GRANT (24.11) is not asked.
func (s *Store) CheckRights(ctx context.Context) error {
	var missing []string
	for _, right := range neededRights {
		var granted uint8
		statement := "CHECK GRANT " + right + " ON " + quoteName(s.cfg.Database) + ".*"
		if err := s.driver.QueryRow(ctx, statement).Scan(&granted); err != nil {
			if errorCode(err) == codeSyntaxError {
				return nil
			}
			return describeError(err, s.cfg)
		}
		if granted == 0 {
			missing = append(missing, right)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("user %q has no %s on database %s", s.cfg.Username, strings.Join(missing, ", "), s.cfg.Database)
}

// codeSyntaxError is ClickHouse's SYNTAX_ERROR.
const codeSyntaxError = 62
