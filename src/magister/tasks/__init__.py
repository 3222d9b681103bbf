"""Families of problems with exact answers, shared by training and evaluation.

One module a family (`generate`, `grade`); the words they are asked in are data
(`phrasings/<book>/<language>/<family>.json`). Knows nothing of models or tokens.
"""
