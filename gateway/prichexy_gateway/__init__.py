"""The command line and the native installation of the gateway."""
