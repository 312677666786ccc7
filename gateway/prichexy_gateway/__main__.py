"""``python -m prichexy_gateway`` is the command ``prichexy``."""

from prichexy_gateway.cli import main

if __name__ == "__main__":
    main()
