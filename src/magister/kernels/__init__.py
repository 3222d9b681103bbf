"""One function per hot spot of the network. `reference` is the definition in plain torch; every other kernel must equal
it.
"""
