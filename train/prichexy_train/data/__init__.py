"""What a set of radiographs is: records, readers, splits, pairs, and the cache on disk."""
