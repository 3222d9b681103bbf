"""The benchmark: Magister and its peers side by side, on the same weights, in one run. `python -m bench`.

What it measures is in docs/performance.md. No part of the package: it installs the peers, the package never does.
"""
