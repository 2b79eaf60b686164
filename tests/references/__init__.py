"""Slow, plain implementations of what the core does fast, written from the papers' formulas."""
