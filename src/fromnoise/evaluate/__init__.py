"""Measuring model folders: every number with its interval, its count and its method."""
