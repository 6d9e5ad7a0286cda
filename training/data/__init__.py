"""From a corpus on disk to batches: read, train a tokenizer, write token shards, draw windows in a reproducible order."""
