"""The attacker ladder: one module a rung, one interface."""
