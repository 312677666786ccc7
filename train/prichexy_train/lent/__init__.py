"""An experiment on a lent machine: one with a GPU and torch, for minutes, without a network."""
