"""Readers, cleaning, shards, packing, conversations, preferences, loader."""
