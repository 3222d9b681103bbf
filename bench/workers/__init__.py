"""One module for each system measured: it runs in that system's own environment and answers one question at a time.

They import nothing but the standard library, the system they measure, and `serve`.
"""
