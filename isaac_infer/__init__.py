"""isaac_infer: neural networks on the pictures of a robot, from image message to result."""

__version__ = '0.1.0'
