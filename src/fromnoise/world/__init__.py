"""The built-in world: documents, facts, conversations, judging and raters, all made from a seed."""
