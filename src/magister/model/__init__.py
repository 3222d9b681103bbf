"""The network: its shape, its layers, its attention and cache tensors, its checkpoints. Imports nothing by itself.

Ask the modules: `config`, `config_files`, `rope`, `decoder`, `vision`, `network`, `attention`, `cache`, `weights`,
`count`.
"""
