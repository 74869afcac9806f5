"""Options and rules of each alignment method, without torch; the mathematics is in stx/alignment."""
