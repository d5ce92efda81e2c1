"""A Kaggle competition submission kit for Kannada-MNIST. `kit --help` lists what it does; see README.md."""

__version__ = "0.1.0"
