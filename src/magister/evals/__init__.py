"""ChatModel x Task -> Report. Knows no tokens, no weights and no transport: any chat model is measured alike."""
