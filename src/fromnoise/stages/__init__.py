"""One verb, one file, its loop visible from top to bottom; no stage imports another."""
