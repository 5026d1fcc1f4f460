"""People's answers, kept durably: the store, its two places, its export."""
