"""Training data: dataset rows become tokens with targets, tokens become padding-free batches."""
