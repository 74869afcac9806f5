"""Networks: SiT, the autoencoder, the classifier."""
