"""What the command line takes. Each command loads what does its work only when it is called."""
