"""ChatModel -> ASGI: six dialects, lists of models, tokens, health, metrics and pages.

Is handed models (`models.Served`) and never makes one: imports no engine, no text, no torch.
"""
