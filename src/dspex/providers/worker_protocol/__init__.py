"""The published protocol of workers: worker.proto and what is generated from it."""

# Both sides have to speak the same.
PROTOCOL = 1
# The metadata that carries a worker's token.
PROOF_HEADER = "x-dspex-token-bin"
