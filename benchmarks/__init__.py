"""Commands that measure: every figure in the documentation is printed by one of them."""
