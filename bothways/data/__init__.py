"""Token ids → packed batches."""
