"""Images, latent shards, order, and the only randomness."""
