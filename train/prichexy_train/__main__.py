"""``python -m prichexy_train`` is the command ``prichexy-train``; torchrun starts it so."""

from prichexy_train.cli import main

if __name__ == "__main__":
    main()
