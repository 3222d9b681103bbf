"""Weights -> TokenModel: sequences, block pool, scheduler, runner, sampler and constraints behind one `Engine`.

Tokens in, tokens out: knows nothing of messages, text rendering or HTTP.
"""
