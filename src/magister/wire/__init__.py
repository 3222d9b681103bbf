"""Dialects: what each SDK sends and expects, as pure functions between bytes and `types`.

Every dialect is a module with the same names, those of `wire.dialect.Dialect`. Knows no sockets, no keys and no models.
"""
