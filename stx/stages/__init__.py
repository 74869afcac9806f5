"""One file per stage kind, control side; what it computes is in stx/worker."""
