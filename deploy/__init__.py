"""How saaa is run on Kubernetes, and what proves that it can be."""
