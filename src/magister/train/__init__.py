"""Training: supervised fine-tuning now, reinforcement learning later, on the network that serves.

Nouns (packing, optimiser, checkpoints, progress) are shared; each way of training keeps its own visible loop.
"""
