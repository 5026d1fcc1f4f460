"""Who may reach the facade, and how: certificates, tokens, scopes."""
