"""One file a task: how it is asked, an ideal answer, and a verifier that reads any answer.

This package knows nothing of the world or of models: words go in, words come out. The world fills it with people and
places; the readers of real data can fill it with anything else that has an answer to check.
"""
