"""`magister verify`: a person's own weights, checked against checksums, transformers, and themselves."""
