"""Training of the networks in models/, from scratch on drawn scenes, with PyTorch."""
