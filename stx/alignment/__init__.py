"""The mathematics of each alignment method; its options are in stx/config/alignment."""
